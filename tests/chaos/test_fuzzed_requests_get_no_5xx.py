"""Ten thousand requests that schemathesis makes from our OpenAPI document are refused or answered as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.spec.data import Task
from tests.integration.containers import container
from tests.integration.fuzzing import fuzz, memory_bytes, registered

pytest.importorskip("schemathesis", reason="schemathesis is not installed: make install-dev")

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

NUM_REQUESTS = 5000
"""Of each of the two models."""

MOST_MORE_BYTES = 50 * 2**20


@pytest.mark.parametrize("task", ["regression", "classification", "multi_label"])
def test_thousands_of_made_up_requests_get_no_5xx_and_leave_memory_flat(tmp_path: Path, task: Task):
    store = registered(tmp_path / "registry", task)
    with container({"RAYPIPE_STORE": store.uri}) as running:
        running.wait_healthy("/healthz")
        # The first run makes the largest bodies and answers there are; what it took is what memory is compared with.
        first = fuzz(running, tmp_path, examples=20, seed=0, phases="examples,coverage,fuzzing", timeout_s=600)
        assert not first.problems, "\n".join(first.problems)
        everyone, before = running.processes(), memory_bytes(running)
        num_requests, seed = first.num_requests, 0
        while num_requests < NUM_REQUESTS:
            seed += 1
            fuzzed = fuzz(running, tmp_path, examples=60, seed=seed, phases="coverage,fuzzing", timeout_s=900)
            assert not fuzzed.problems, "\n".join(fuzzed.problems)
            assert fuzzed.num_requests > 0
            num_requests += fuzzed.num_requests
        assert running.processes() == everyone
        assert memory_bytes(running) - before < MOST_MORE_BYTES
        assert running.stop() == 0
