"""FAULTS T5: S3 answers nothing for a while; the training goes on, and its checkpoints are there after."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raypipe.storage import layout, open_store
from raypipe.testing.faults import ThrottlingProxy
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.integration.s3_server import S3Server
from tests.unit.train.orders import dataset, order

pytestmark = [pytest.mark.chaos, pytest.mark.s3, pytest.mark.timeout(300)]

AWAY_S = 30.0
SLOW = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x):
        if self.training:
            time.sleep(0.25)
        return self.layer(x)

def build():
    return Slow()
"""


def test_training_goes_on_while_s3_is_away_and_its_checkpoints_are_there_after(
    tmp_path: Path, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW)
    own = {"kind": "import", "path": "slow_model.py:build"}
    train = {"epochs": 30, "checkpoint": {"every_steps": 3, "num_to_keep": 1000}}
    with ThrottlingProxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        store = open_store(f"s3://{bucket}/x")
        data = dataset(store)
        made = order(tmp_path, "r1", train, model=own, code_dir=tmp_path, data=data)
        training = TrainOrder(made.spec, data, store.uri, "r1", made.artifact_key, code_dir=tmp_path)
        step_at: list[float] = []
        notes: list[str] = []
        train_step = loop.Trainer.train_step

        def timed(self: loop.Trainer, batch: Any) -> Any:
            step_at.append(time.monotonic())
            if len(step_at) == 12:
                proxy.is_away = True
                threading.Timer(AWAY_S, lambda: setattr(proxy, "is_away", False)).start()
            return train_step(self, batch)

        monkeypatch.setattr(loop.Trainer, "train_step", timed)
        result = loop.run(training, World(), lambda event: notes.append(event["text"]) if "text" in event else None)

        kept = {info.key.split("/")[-2] for info in store.list(layout.checkpoints("r1")) if "manifest" in info.key}
    away = step_at[11], step_at[11] + AWAY_S
    during = [at for at in step_at if away[0] <= at <= away[1]]
    assert len(during) > 0.6 * AWAY_S / 0.25, "the training went on"
    assert result.num_steps == 30 * 6 == len(step_at), "and no step was done twice"
    assert sum("training goes on" in note for note in notes) == 1
    assert {"step-00000012", "step-00000180"} <= kept, "what was due when it went away was written when it came back"
