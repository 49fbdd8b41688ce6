"""FAULTS T7: the disk of the checkpoints is full: an error that names path and bytes; the last checkpoint is whole, and
the same training goes on from it once there is room."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raypipe.errors import StoreAccessError
from raypipe.storage.local import LocalFolder
from raypipe.train import checkpoints, loop, reporter
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import order

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

DISK_BYTES = 16 * 2**20
TRAIN = {"epochs": 4, "checkpoint": {"every_steps": 2}, "optimizer": {"kind": "adamw", "lr": 0.01}}
MODEL = {"kind": "mlp", "hidden": [300, 300], "dropout_frac": 0.5}
"""1.1 MB a checkpoint: numbers of 4 bytes, and two more of each that Adam keeps."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _run(training: TrainOrder, events: list[dict[str, Any]]) -> str:
    return loop.run(training, World(), events.append).artifact.digest


@pytest.mark.parametrize("num_checkpoints", [1, 2, 3, 4, 5])
def test_disk_that_is_full_at_any_checkpoint_keeps_the_one_before(
    tmp_path: Path, small_disk: Path, num_checkpoints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)
    keep = {**TRAIN, "checkpoint": {"every_steps": 2, "num_to_keep": 1000}}
    whole = _run(order(tmp_path / "whole", "r1", keep, model=MODEL), [])
    training = order(small_disk / "store", "r1", keep, model=MODEL)
    store, filler = LocalFolder(training.store_uri), small_disk / "filler"
    with filler.open("wb") as file:
        room = int((num_checkpoints + 0.5) * 1.1e6)
        file.write(bytes(max(0, DISK_BYTES - room - 2**20)))

    with pytest.raises(StoreAccessError) as caught:
        _run(training, [])
    assert re.search(
        rf"{re.escape(training.store_uri)}/runs/r1/\S+: no space left on the disk: [\d,]+ of 16,777,216 bytes are free",
        caught.value.message,
    )
    kept = checkpoints.stored_steps(store, "r1")[0]
    for step in kept:
        checkpoints.open_checkpoint(store, "r1", step, training.fingerprint()).read()  # every byte is checked
    assert kept, "the fault must come after a checkpoint"
    filler.unlink()
    events: list[dict[str, Any]] = []
    assert _run(training, events) == whole
    assert next(event["step"] for event in events if event["event"] == "start") == kept[0]
