"""Which stores a job may use; the question whether nodes share a folder is asked of real nodes, in integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import SpecError
from raypipe.runtime.reach import _holds, lasting, open_reachable


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process as Ray starts a job's driver: in a folder that ends with the job."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("uri", ["s3://bucket/prefix", "/mnt/shared"])
def test_lasting_store_that_outlives_a_job_is_taken_as_it_is(uri: str):
    assert lasting(uri) == uri


def test_lasting_without_a_store_takes_that_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPIPE_STORE", "s3://bucket/mine")
    assert lasting(None) == "s3://bucket/mine"


def test_store_in_a_jobs_own_folder_is_refused_and_not_made(in_a_job: Path):
    with pytest.raises(SpecError, match="'kept' is relative to the job's own folder, which ends with it"):
        open_reachable("kept")
    with pytest.raises(SpecError, match="no store is named"):
        open_reachable()
    assert list(in_a_job.iterdir()) == []


def test_store_named_in_full_is_opened_in_a_job(in_a_job: Path):
    assert open_reachable(str(in_a_job / "kept")).uri == str(in_a_job / "kept")


def test_folder_in_a_job_is_refused_in_the_name_of_its_option(in_a_job: Path):
    with pytest.raises(SpecError, match=r"^--output: 'kept' is relative .*\ntry: --output s3://"):
        lasting("kept", "--output")


def test_node_without_the_folder_does_not_hold_what_was_written_and_makes_none(tmp_path: Path):
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    open_reachable(str(there)).write("probe/1", b"token")
    (tmp_path / "file").write_text("in the way")

    assert _holds(str(there), "probe/1", b"token") and not _holds(str(there), "probe/1", b"another")
    assert not _holds(str(elsewhere), "probe/1", b"token") and not elsewhere.exists()
    assert not _holds(str(tmp_path / "file" / "below"), "probe/1", b"token")


def test_store_outside_a_job_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_reachable("kept").uri == str(tmp_path / "kept")
