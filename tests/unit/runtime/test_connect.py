"""What is said about a folder that does not fit through to a cluster, in Ray's own words for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.web import HTTPRequestEntityTooLarge
from ray._private.runtime_env import packaging
from ray.exceptions import RuntimeEnvSetupError

from raypipe.errors import SpecError
from raypipe.runtime.sending import sending

MIB = 2**20


def refused_by_client() -> None:
    try:
        packaging.upload_package_to_gcs("gcs://package.zip", bytes(2 * MIB))
    except ValueError as error:
        raise RuntimeEnvSetupError("Failed to upload working_dir") from error


def refused_by_dashboard() -> None:
    raise RuntimeError(f"Request failed with status code 413: {HTTPRequestEntityTooLarge(2 * MIB).text}.")


@pytest.mark.parametrize("refuse", [refused_by_client, refused_by_dashboard])
def test_folder_too_large_to_send_names_the_folder_the_limit_and_the_remedy(
    refuse: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packaging, "GCS_STORAGE_MAX_SIZE", 2 * MIB)  # instead of 500 MiB to pack
    too_large = pytest.raises(SpecError, match=r"/home/me/model is too large .* below 2 MiB")
    with too_large as raised, sending(Path("/home/me/model")):
        refuse()
    assert ".rayignore" in raised.value.hint


def test_other_failures_of_sending_stay_what_they_are():
    with pytest.raises(RuntimeError, match="no answer"), sending(Path("/home/me/model")):
        raise RuntimeError("no answer")
