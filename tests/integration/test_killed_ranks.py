"""FAULTS T1, T6 in `parallel: sharded`, on ranks without Ray: one of each kill a day; tests/chaos has ten of each."""

from __future__ import annotations

from pathlib import Path

from tests.integration import killing


def test_sharded_training_killed_in_a_step_and_in_a_commit_loses_an_interval_and_no_bit(tmp_path: Path) -> None:
    whole, killed, kills = killing.train(tmp_path, "sharded", ["rank 1 5", "commit 0 6"], epochs=3)

    for kill in kills:
        killing.check_cost(kill, interval=2)
    assert killed.history == whole.history
    assert killed.artifact.digest == whole.artifact.digest
