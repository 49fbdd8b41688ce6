"""FAULTS T10: a rank is stopped; the others find it, tell where they stand, and the group starts again."""

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

HUNG_AFTER_S = 5.0


def test_worker_stopped_is_found_told_and_started_again_with_the_same_bits(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    digests: dict[str, str] = {}
    for run_id, plan in {"whole": [], "stopped": ["1 6 stop"]}.items():
        code_dir = faults.write_network(tmp_path / "code", plan)
        spec = faulty.pipeline(code_dir, hung_after_s=HUNG_AFTER_S, max_failures=1)
        result, told = faulty.run(spec, store, code_dir, run_id)
        digests[run_id] = result.artifact.digest

    hung = [event for event in told if event.get("event") == "hung"]
    assert [event["rank"] for event in hung] == [0], "a process that is stopped cannot speak"
    assert HUNG_AFTER_S <= hung[0]["silent_s"] <= HUNG_AFTER_S + 5
    assert "step.py" in hung[0]["stack"], hung[0]["stack"]
    assert result.attempts == 2 and faulty.starts(told) == [0, 3]
    assert all(faults.is_gone(pid) for pid, _ in faults.kills(code_dir)), "the stopped process was ended"
    assert digests["whole"] == digests["stopped"]
