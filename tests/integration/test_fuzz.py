"""Some hundred requests that schemathesis makes from our OpenAPI document; thousands of them are a story of chaos."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.containers import container
from tests.integration.fuzzing import fuzz, registered

pytest.importorskip("schemathesis", reason="schemathesis is not installed: make install-dev")


def test_made_up_requests_get_what_the_document_says(tmp_path: Path):
    store = registered(tmp_path / "registry", "regression")
    with container({"RAYPIPE_STORE": store.uri}) as running:
        running.wait_healthy("/healthz")
        before = running.processes()
        fuzzed = fuzz(running, tmp_path, examples=20, seed=1, phases="examples,fuzzing", timeout_s=100)
        assert not fuzzed.problems, "\n".join(fuzzed.problems)
        assert fuzzed.num_requests >= 200
        assert running.processes() == before  # nobody died, nobody was started anew
        assert running.stop() == 0
