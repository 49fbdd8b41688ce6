"""torch.compile with a real compiler, which takes up to a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._dynamo.utils import counters

from raypipe.train import loop
from raypipe.train.rows import World
from tests.unit.train.orders import order

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),  # of what torch's compiler imports itself
]


def test_run_compiled_learns_what_eager_does(tmp_path: Path) -> None:
    model = {"kind": "mlp", "hidden": [16]}
    eager, compiled = (
        loop.run(order(tmp_path, name, {"epochs": 2, **train}, model=model), World(), lambda event: None)
        for name, train in {"eager": {}, "compiled": {"compile": True}}.items()
    )
    assert counters["stats"]["unique_graphs"], "torch must have compiled something"
    for plain, found in zip(eager.history, compiled.history, strict=True):
        assert found.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=1e-5)
        assert found.metrics["val_loss"] == pytest.approx(plain.metrics["val_loss"], rel=1e-5)
