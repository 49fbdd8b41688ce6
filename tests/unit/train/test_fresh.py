"""A training that begins anew in a run that was there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypipe.records import TrainResult
from raypipe.storage import layout, open_store
from raypipe.testing.fakes import run_context
from raypipe.train import loop, stage
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import order


def test_train_fresh_in_a_finished_run_trains_every_step_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []

    def here(order: TrainOrder, *_: object) -> TrainResult:
        return loop.run(order, World(), events.append)

    monkeypatch.setattr(stage, "fit", here)  # in this process: what Ray Train does is told elsewhere
    first = order(tmp_path, "r1", {})
    ctx = run_context(open_store(first.store_uri), run_id="r1")

    for fresh in (False, False, True):
        stage.train(first.spec, first.dataset, replace(ctx, fresh=fresh))

    assert [event["step"] for event in events if event["event"] == "start"] == [0, 18, 0]
    assert list(ctx.store.list(layout.checkpoints("r1")))
