"""What is added to a network changes no name and, unless it says so, no bit; ranks are in tests/integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raypipe.errors import ModelError, ResourceError
from raypipe.spec.train import TrainSpec
from raypipe.train import loop
from raypipe.train.blocks import blocks_of
from raypipe.train.fit_out import fit_out
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import BATCH_NORM, order


class Block(nn.Module):
    """Counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop, self.calls = nn.Linear(4, 4), nn.Dropout(0.5), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.drop(self.layer(x).relu())


class Stack(nn.Module):
    def __init__(self, num_blocks: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(num_blocks))
        self.last.weight = self.first.weight  # tied, as the words of a language model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_blocks_of_are_the_layers_of_lists_and_none_that_shares_a_parameter() -> None:
    stack = Stack()
    inner = nn.Linear(4, 4)
    tied = nn.Sequential(stack.first, nn.ReLU(), nn.Sequential(inner, nn.Flatten()), stack.last)

    assert blocks_of(stack) == list(stack.blocks)
    assert blocks_of(tied) == [inner]
    assert blocks_of(nn.Linear(2, 2)) == []


def test_recompute_runs_blocks_twice_and_gives_the_same_gradient_with_dropout() -> None:
    plain, again = Stack(), Stack()
    again.load_state_dict(plain.state_dict())
    fit_out(again, TrainSpec(recompute=True), World())
    for module in (plain, again):
        torch.manual_seed(3)
        module(torch.ones(2, 4)).square().sum().backward()

    assert [block.calls for block in plain.blocks] == [1, 1, 1]
    assert [block.calls for block in again.blocks] == [2, 2, 2]
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad), name
    assert again.state_dict().keys() == plain.state_dict().keys()


def _norm_order(folder: Path, run_id: str, train: dict[str, Any]) -> TrainOrder:
    (folder / "norm_model.py").write_text(BATCH_NORM)
    own = {"kind": "import", "path": "norm_model.py:build"}
    return order(folder, run_id, train, model=own, code_dir=folder)


def test_run_recomputed_ends_with_the_same_bits_running_averages_included(tmp_path: Path) -> None:
    plain, again = (_norm_order(tmp_path, f"r{int(value)}", {"recompute": value}) for value in (False, True))
    assert plain.fingerprint() == again.fingerprint()
    digests = {loop.run(training, World(), lambda event: None).artifact.digest for training in (plain, again)}
    assert len(digests) == 1


def test_recompute_of_a_network_without_blocks_says_what_is_missing() -> None:
    with pytest.raises(ModelError, match="has no layers in an nn"):
        fit_out(nn.Linear(2, 2), TrainSpec(recompute=True), World())


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ResourceError, match=r"train.compile: true needs a C\+\+ compiler"):
        fit_out(nn.Linear(2, 2), TrainSpec(compile=True), World())


def test_recompute_and_compile_of_batch_normalization_are_refused_together() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ModelError, match="do not allow for BatchNorm1d"):
        fit_out(module, TrainSpec(recompute=True, compile=True), World())
