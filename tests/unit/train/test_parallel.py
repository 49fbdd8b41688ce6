"""What one rank holds of a model, alone; several ranks are in tests/integration/test_ranks.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from raypipe.spec.optim import AdamSpec, AdamWSpec, Optimizer, SgdSpec
from raypipe.train.optim import build_optimizer
from raypipe.train.parallel import Alone, Ddp, Parallel, Piece
from raypipe.train.rows import World


def _alone(spec: Optimizer) -> Parallel:
    parallel = Alone(World(), nn.Linear(5, 3))
    parallel.optimizer = build_optimizer(spec, parallel.parameters)
    return parallel


@pytest.mark.parametrize(
    "spec",
    [
        SgdSpec(kind="sgd", lr=0.1),
        SgdSpec(kind="sgd", lr=0.1, momentum=0.9),
        AdamSpec(kind="adam", lr=0.1),
        AdamWSpec(kind="adamw", lr=0.1),
    ],
    ids=["sgd", "momentum", "adam", "adamw"],
)
def test_load_pieces_of_another_goes_on_to_the_same_bits(spec: Optimizer) -> None:
    first, second = _alone(spec), _alone(spec)
    for _ in range(3):
        _step(first)

    second.load({name: piece.values.clone() for name, piece in first.local_pieces().items()})
    for _ in range(2):
        _step(first)
        _step(second)

    there = second.local_pieces()
    assert all(torch.equal(piece.values, there[name].values) for name, piece in first.local_pieces().items())


def test_local_pieces_are_named_by_parameter_and_are_whole() -> None:
    parallel = _alone(AdamSpec(kind="adam"))
    _step(parallel)

    pieces = parallel.local_pieces()

    names = ("weight", "bias")
    kept = {f"optimizer/{name}/{kind}" for name in names for kind in ("exp_avg", "exp_avg_sq", "step")}
    assert pieces.keys() == {"model/weight", "model/bias", *kept}
    assert pieces["optimizer/weight/exp_avg"][1:] == Piece(torch.empty(0), (3, 5), (0, 0), True)[1:]
    assert pieces["model/weight"].values.data_ptr() == parallel.parameters[0].data_ptr(), "no copy"


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_ddp_tells_one_number_of_a_gradient_that_is_not_finite(wrong: float) -> None:
    parallel = Ddp(World(), nn.Linear(5, 3), has_unused=False)
    parallel.optimizer = build_optimizer(SgdSpec(kind="sgd", lr=0.1), parallel.parameters)
    _step(parallel)
    found = parallel.norm_and_clip(None)
    assert found is not None and math.isfinite(float(found))
    parallel.gradients()[0][2, 4] = wrong
    for largest in (None, 1.0):
        found = parallel.norm_and_clip(largest)
        assert found is not None and not math.isfinite(float(found))


def _step(parallel: Parallel) -> None:
    parallel.forget_gradients()
    parallel.network(torch.linspace(0, 1, 10).reshape(2, 5)).square().sum().backward()
    parallel.optimizer.step()
