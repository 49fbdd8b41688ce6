"""FAULTS T1, T3, T6: ten kills each of a rank, of the driver and within the commit of a checkpoint, under DDP and
sharded: an interval is lost each time, and no bit. On ranks without Ray, which start in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import killing

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

EPOCHS = 10

PLANS = {
    "rank": [f"rank {rank} {after}{how}" for how in ("", " at_once") for after in (3, 5) for rank in (0, 1)]
    + ["rank 0 4", "rank 1 4"],
    "driver": [f"driver {after}" for after in (3, 4, 5, 3, 4, 5, 3, 4, 5, 3)],
    # Rank 0 writes its part, the index and the manifest of each checkpoint, rank 1 its part and the receipt.
    "commit": [f"commit 0 {write}" for write in (4, 5, 6, 7, 8, 9)] + [f"commit 1 {write}" for write in (3, 4, 5, 6)],
}


@pytest.mark.parametrize("parallel", ["ddp", "sharded"])
@pytest.mark.parametrize("kind", PLANS)
def test_training_killed_ten_times_loses_an_interval_each_and_no_bit(tmp_path: Path, kind: str, parallel: str) -> None:
    plan = PLANS[kind]
    assert len(plan) == 10
    whole, killed, kills = killing.train(tmp_path, parallel, plan, EPOCHS)

    for kill in kills:
        killing.check_cost(kill, interval=2)
    print(f"{kind}, {parallel}: steps done again {[kill.done - kill.next_start for kill in kills]}")
    assert killed.history == whole.history
    assert killed.artifact.digest == whole.artifact.digest
