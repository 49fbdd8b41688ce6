"""FAULTS T4, where raypipe starts the workers: SIGTERM makes a checkpoint at once, and is not charged as a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.storage import open_store
from raypipe.testing import faults
from tests.integration import faulty

pytestmark = [
    *(pytest.mark.chaos, pytest.mark.ray),
    *(pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)),
]


def test_worker_that_is_asked_to_end_keeps_a_checkpoint_and_the_group_goes_on_from_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    digests: dict[str, str] = {}
    for run_id, plan in {"whole": [], "asked": ["1 6 term"]}.items():
        code_dir = faults.write_network(tmp_path / "code", plan)
        spec = faulty.pipeline(code_dir, max_failures=0, checkpoint={})
        result, told = faulty.run(spec, store, code_dir, run_id)
        digests[run_id] = result.artifact.digest

    first, second = faulty.starts(told)
    assert first == 0 and second >= 5, "the call was in the fifth step"
    assert second % 8, "no epoch ended there: it was kept because of the notice"
    assert result.attempts == 2
    assert digests["whole"] == digests["asked"]
