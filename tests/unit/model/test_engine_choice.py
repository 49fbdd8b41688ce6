"""Networks that may be traced, and those that must be told apart."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypipe.errors import ServeError
from raypipe.model import engine_choice as room
from raypipe.model.engine_choice import choose_engine
from raypipe.model.engines import AnsweringNetwork
from raypipe.model.tasks.classification import Classification
from raypipe.model.tasks.regression import Regression

PROBES = np.concatenate(
    [np.zeros((1, 4), np.float32), np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32) * 3]
)


class Own(nn.Module):
    """A network of four numbers and three classes; what it does on the way is each test's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.calls = 0
        self.seen: list[int] = []
        self.register_buffer("count", torch.zeros(1))
        self.eval()


def unseen_length(x: Tensor) -> int:
    """Rows of [B, 4] float32, as a number that torch's tracer knows nothing of."""
    return x.untyped_storage().nbytes() // 16


class DecidesBySum(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


class DecidesByNumberOfRows(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.shape[0] < 20 else -self.layer(x)


class LoopsOverRows(Own):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(row) for row in x])


class GoesThroughNumpy(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.from_numpy(np.sign(x.numpy())))


class KeepsTheNumberOfRows(Own):
    """Without a warning of the tracer: the number of rows comes by a way it does not see."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * torch.ones(unseen_length(x), 4))


class Dropping(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.dropout(x, 0.5, training=True))


class DrawsInPython(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if random.random() < 0.999999 else -self.layer(x)


class CountsItsCalls(Own):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) if self.calls < 1000 else -self.layer(x)


class Remembers(Own):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(1)
        return self.layer(x)


class MovesABuffer(Own):
    count: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.layer(x) if True else self.count


class AnswersByItsBuffer(Own):
    count: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.count += 0.1
        return self.layer(x) + self.count


class NormsOverTheBatch(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(dim=0))


class FailsFarOut(Own):
    def forward(self, x: Tensor) -> Tensor:
        if bool((x.abs() > 5).any()):
            raise ValueError("no such weather")
        return self.layer(x)


class ChangesItsInput(Own):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2).add_(1)
        return self.layer(x)


class DividesByZero(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x / x)


class CountsRowsByShape(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(x.shape[0], -1))


class Inner(Own):
    """A dict and a tuple between its layers, one tensor at the end."""

    def forward(self, x: Tensor) -> Tensor:
        halves = {"a": x[:, :2], "b": x[:, 2:]}
        pair = (halves["b"], halves["a"])
        return self.layer(torch.cat(pair, dim=1))


def choose(network: nn.Module, wanted: Any = "auto", probes: np.ndarray = PROBES) -> Any:
    return choose_engine(wanted, AnsweringNetwork(network.eval(), Classification.read_output), probes)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (DecidesBySum, "Converting a tensor to a Python boolean"),
        (DecidesByNumberOfRows, "Converting a tensor to a Python boolean"),
        (LoopsOverRows, "Iterating over a tensor"),
        (GoesThroughNumpy, "NumPy array"),
        (KeepsTheNumberOfRows, "fails where eager answers"),
        (Dropping, "differently from call to call"),
        (DrawsInPython, "the generator of Python"),
        (CountsItsCalls, "changes its own state when it is called (calls)"),
        (Remembers, "changes its own state when it is called (seen)"),
        (MovesABuffer, "changes its own state when it is called (count)"),
        (AnswersByItsBuffer, "differently from call to call"),
        (NormsOverTheBatch, "with who shares its call"),
        (FailsFarOut, "fails on rows made to try it"),
    ],
)
def test_network_that_tracing_would_bend_is_called_as_it_is_and_the_reason_is_told(network: type[Own], reason: str):
    engine, choice = choose(network())
    assert choice.name == "eager" and choice.reason.startswith("traced is not used: ") and reason in choice.reason
    assert "\n" not in choice.reason and "site-packages" not in choice.reason and len(choice.reason) < 300
    fresh, rows = network(), PROBES[:3] / 10
    torch.manual_seed(5)
    expected = AnsweringNetwork(fresh, Classification.read_output)(torch.from_numpy(rows.copy()))
    if network is not AnswersByItsBuffer:  # it has been asked before, so it answers otherwise
        torch.manual_seed(5)
        np.testing.assert_array_equal(engine(rows.copy()), expected.detach().numpy())


@pytest.mark.parametrize("network", [ChangesItsInput, DividesByZero, CountsRowsByShape, Inner])
def test_network_that_tracing_keeps_is_traced_and_answers_to_the_bit(network: type[Own]):
    engine, choice = choose(network())
    assert choice.name == "traced" and "equal to eager's to the bit" in choice.reason
    random_rows = np.random.default_rng(7)
    for num_rows in (1, 2, 5, 64, 100):
        rows = random_rows.normal(size=(num_rows, 4)).astype(np.float32)
        with torch.inference_mode():
            expected = AnsweringNetwork(network(), Classification.read_output)(torch.from_numpy(rows.copy())).numpy()
        np.testing.assert_array_equal(engine(rows.copy()), expected)


def test_recurrent_network_with_a_state_made_for_each_call_is_traced():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRU(1, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x.unsqueeze(2))[0][:, -1])

    network = Recurrent()
    engine, choice = choose(network)
    assert choice.name == "traced", choice
    for num_rows in (1, 3, 50):
        rows = np.random.default_rng(num_rows).normal(size=(num_rows, 4)).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(rows)).softmax(dim=1).numpy()
        np.testing.assert_allclose(engine(rows), expected, rtol=0, atol=1e-6)


def test_named_engine_that_answers_differently_is_refused_with_the_difference():
    class FewRows(Own):
        def forward(self, x: Tensor) -> Tensor:
            few = unseen_length(x) < 5
            return self.layer(x) * (1.0 if few else 1.5)

    with pytest.raises(
        ServeError, match=r"serve.engine: traced is refused: its answers differ .* by 0\.\d+.*1e-06"
    ) as e:
        choose(FewRows(), "traced")
    assert e.value.hint == "set serve.engine: auto"


def test_named_engine_is_used_where_the_tracer_only_suspects_and_the_suspicion_is_told():
    class CountsRows(Own):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x[: len(x) * 100])

    _, choice = choose(CountsRows(), "traced")
    assert choice.name == "traced" and "; but " in choice.reason and "len" in choice.reason
    assert choose(CountsRows())[1].name == "eager"


class NotesItsRows(Own):
    def forward(self, x: Tensor) -> Tensor:
        if not torch._C._get_tracing_state():
            NOTED.add(x.size(0))
        return self.layer(x)


NOTED: set[int] = set()
"""Kept apart from the network: it is no state of it."""


def test_network_so_slow_that_trying_it_holds_up_the_start_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "MAX_ROW_S", 0.0)
    assert "next to nothing" in choose(NotesItsRows())[1].reason


def test_slow_network_is_compared_with_fewer_rows_but_never_with_one_size_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "MAX_TRIAL_CALL_S", 0.0)
    NOTED.clear()
    assert choose(NotesItsRows())[1].name == "traced"
    assert sorted(NOTED) == [1, 2]


def test_regression_is_compared_relative_to_its_size():
    class Large(Own):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[:, :1] * 1e7

    network = AnsweringNetwork(Large().eval(), Regression.read_output)
    engine, choice = choose_engine("auto", network, PROBES)
    assert choice.name == "traced" and engine(PROBES).shape == (33,)


def test_graphs_are_judged_by_the_same_rules_and_padding_counts_as_company():
    engine, choice = choose(nn.Linear(4, 3), "graphs")
    assert choice.name == "graphs" and engine(PROBES[:3]).shape == (3, 3)
    with pytest.raises(ServeError, match="graphs is refused"):
        choose(NormsOverTheBatch(), "graphs")
