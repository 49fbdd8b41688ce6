"""Micro batches, the scale of the loss and what is done where a GPU is too small, on one rank without a store."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from raypipe.errors import NonFiniteLossError, UserCodeError
from raypipe.spec.optim import SgdSpec
from raypipe.spec.train import TrainSpec
from raypipe.train.checkpoints import TrainState
from raypipe.train.fitting import largest_that_fits, room_for_state
from raypipe.train.optim import build_optimizer
from raypipe.train.parallel import Alone
from raypipe.train.precision import GROWS_AFTER_STEPS, Scale
from raypipe.train.rows import Batch, Rows, World
from raypipe.train.step import FiniteCheck, OptimizerStep, micro_batches
from raypipe.train.user_errors import NetworkRuns


def _rows(num_rows: int) -> Rows:
    return Rows(torch.arange(3.0 * num_rows).reshape(num_rows, 3) / 10, torch.arange(num_rows) % 2)


@pytest.mark.parametrize("rows_each", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_micro_batches_are_equally_many_on_all_ranks_and_hold_every_row_once(rows_each: int, world_size: int) -> None:
    for num_rows_all in range(world_size, 40):
        _check_micro_batches(num_rows_all, rows_each, world_size)


def _check_micro_batches(num_rows_all: int, rows_each: int, world_size: int) -> None:
    counts: set[int] = set()
    for num_rows in {num_rows_all // world_size, -(-num_rows_all // world_size)}:
        batch = Batch(_rows(num_rows), 1.0, num_rows, num_rows_all)
        parts = micro_batches(batch, rows_each, world_size)
        counts.add(len(parts))
        assert torch.equal(torch.cat([rows.features for rows, _ in parts]), batch.rows.features)
        assert math.isclose(sum(frac for _, frac in parts), 1.0)
        sizes = [len(rows.target) for rows, _ in parts]
        assert max(sizes) <= rows_each + 2
        assert min(sizes) >= min(2, rows_each, num_rows), "a normalization makes nothing of a single row"
        counts.add(len(micro_batches(Batch(_rows(5), math.nan, 0, num_rows_all), rows_each, world_size)))
    assert len(counts) == 1, "a rank that cannot read its rows takes part in all passes"


def _step(module: nn.Module, scale: Scale, *, micro_batch_rows: int | None = None) -> OptimizerStep:
    world = World()
    parallel = Alone(world, module)
    parallel.optimizer = build_optimizer(SgdSpec(kind="sgd", lr=0.1), parallel.parameters)

    def loss_of(network: nn.Module, rows: Rows) -> torch.Tensor:
        return F.cross_entropy(network(rows.features), rows.target)

    return OptimizerStep(
        parallel,
        loss_of,
        world,
        TrainSpec(micro_batch_rows=micro_batch_rows or "auto"),
        scale=scale,
        runs=NetworkRuns(world),
        finite=FiniteCheck(world, 10),
        on_failure=lambda error: None,
        on_overflow=lambda: None,
    )


def test_take_in_micro_batches_gives_the_step_and_the_loss_of_the_whole_batch() -> None:
    at_once, in_parts = nn.Linear(3, 2), nn.Linear(3, 2)
    in_parts.load_state_dict(at_once.state_dict())
    batch = Batch(_rows(7), 1.0, 7, 7)

    loss = _step(at_once, Scale("float32")).take(batch, 0)
    same = _step(in_parts, Scale("float32"), micro_batch_rows=2).take(batch, 0)

    torch.testing.assert_close(same, loss)
    torch.testing.assert_close(in_parts.weight, at_once.weight)
    assert in_parts.weight.grad is not None and at_once.weight.grad is not None
    torch.testing.assert_close(in_parts.weight.grad, at_once.weight.grad)


class Steep(nn.Module):
    """Its gradient is larger than float16 holds once the loss is scaled; `factor` decides by how much."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(3, 2), factor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (self.layer(features).half() * self.factor).float()


def test_take_where_the_scaled_gradient_overflows_leaves_the_step_out_and_halves_the_scale() -> None:
    torch.manual_seed(0)
    module, scale, state = Steep(64.0), Scale("float16"), TrainState(fingerprint="")
    scale.resume(state)
    step = _step(module, scale)
    batch, before = Batch(_rows(4), 1.0, 4, 4), module.layer.weight.detach().clone()
    first = state.scale

    step.take(batch, 0)
    assert torch.equal(module.layer.weight, before)
    assert (state.scale, state.scale_good_steps) == (first / 2, 0)

    for number in range(1, 12):
        step.take(batch, number)
    assert not torch.equal(module.layer.weight, before), "soon the scale is small enough"
    assert state.scale_good_steps > 0


def test_take_where_no_scale_helps_stops_with_the_step() -> None:
    scale = Scale("float16")
    scale.resume(TrainState(fingerprint="", scale=4.0))
    step = _step(Steep(math.inf), scale)
    batch = Batch(_rows(4), 1.0, 4, 4)
    step.take(batch, 0)
    step.take(batch, 1)
    with pytest.raises(NonFiniteLossError, match=r"training step 3 \(epoch 1\)"):
        step.take(batch, 2)


def test_scale_is_doubled_after_many_good_steps() -> None:
    scale, state = Scale("float16"), TrainState(fingerprint="", scale=8.0, scale_good_steps=GROWS_AFTER_STEPS - 1)
    scale.resume(state)
    assert scale.takes(torch.tensor(1.0))
    assert (scale.factor, state.scale_good_steps) == (16.0, 0)


def _room_for(num_rows: int, tried: list[int]) -> Callable[[int], None]:
    def attempt(wanted: int) -> None:
        tried.append(wanted)
        if wanted > num_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return attempt


def test_largest_that_fits_halves_until_there_is_room() -> None:
    tried: list[int] = []
    assert largest_that_fits(_room_for(20, tried), 100, World()) == 13
    assert tried == [100, 50, 25, 13]


def test_largest_that_fits_not_even_one_row_says_what_to_do() -> None:
    with pytest.raises(UserCodeError, match="over a single row") as caught:
        largest_that_fits(_room_for(0, []), 3, World())
    assert "train.parallel: sharded" in caught.value.hint


def test_room_for_state_is_what_the_first_step_takes() -> None:
    for momentum, copies in ((0.9, 1), (0.0, 0)):
        module = nn.Linear(3, 2)
        optimizer = build_optimizer(SgdSpec(kind="sgd", momentum=momentum), module.parameters())
        assert sum(room.numel() for room in room_for_state(optimizer)) == copies * 8
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state = [each for values in optimizer.state.values() for each in values.values() if each is not None]
        assert sum(each.numel() for each in state) == copies * 8


class OutOfMemory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if len(features) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return self.layer(features)


def test_settle_finds_the_micro_batches_that_fit_and_changes_nothing() -> None:
    module = OutOfMemory()
    before = module.layer.weight.detach().clone()
    step = _step(module, Scale("float32"))

    step.settle(_rows(7), fits_gpu=True)

    assert step.micro_batch_rows == 2
    assert torch.equal(module.layer.weight, before) and module.layer.weight.grad is None


def test_take_that_runs_out_of_memory_names_the_rows_that_were_tried() -> None:
    step = _step(OutOfMemory(), Scale("float32"), micro_batch_rows=4)
    with pytest.raises(UserCodeError, match="4 rows at a time take more memory than there is") as caught:
        step.take(Batch(_rows(8), 1.0, 8, 8), 0)
    assert "set train.micro_batch_rows lower" in caught.value.hint
