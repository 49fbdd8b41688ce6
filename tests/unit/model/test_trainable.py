"""Networks that cannot be trained are told when they are built, each in words that name the parameter or the type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.trainable import check_trainable


class Net(nn.Module):
    """A linear layer, an unused one, and an answer made of its output."""

    def __init__(self, answer: Callable[[Tensor], Any] = lambda output: output, *, unused: bool = False) -> None:
        super().__init__()
        self.answer = answer
        self.layer = nn.Linear(4, 3)
        if unused:
            self.aux = nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Any:
        return self.answer(self.layer(rows))


class Stateful(Net):
    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None: ...


class Outer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Stateful()


class OnlyWhileTraining(Net):
    def forward(self, rows: Tensor) -> Any:
        output = self.layer(rows)
        return (output, output) if self.training else output


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 3)]

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers[0](rows)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 3, sparse=True)

    def forward(self, rows: Tensor) -> Tensor:
        return self.words(rows.long()).mean(dim=1)


class Refuses(Net):
    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) == 1:
            raise ValueError("one row is not enough")
        return super().forward(rows)


class Ignores(Net):
    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(torch.ones_like(rows))


class Remembers(Net):
    """Keeps the rows it has seen, or notes each call, in its state."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.calls = how, 0
        self.register_buffer("seen", torch.zeros(0, 4), persistent=how != "aside")

    def forward(self, rows: Tensor) -> Tensor:
        if self.how == "notes":
            self.calls += 1
            self.register_buffer(f"call_{self.calls}", torch.ones(1))
        elif self.training:
            self.seen = torch.cat([self.seen, rows.detach()])
        return super().forward(rows)


def mixed() -> nn.Module:
    network = Net(unused=True)
    network.aux.double()
    return network


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


def on_meta() -> nn.Module:
    network = Net()
    network.register_buffer("scale", torch.ones(3, device="meta"))
    return network


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (frozen, r"every parameter is frozen \(requires_grad=False\): layer\.weight, layer\.bias", "last layer"),
        (Listed, r"the network \(Listed\) has no parameters", "use nn.ModuleList"),
        (nn.Identity, r"the network \(Identity\) has no parameters", ""),
        (Sparse, r"words\.weight get sparse gradients", "sparse=False"),
        (lambda: Net(lambda o: (o, o)), r"answers a tuple of Tensor, Tensor; it must answer one tensor", ""),
        (lambda: Net(lambda o: {"logits": o}), r"answers a dict with 'logits'; it must answer one tensor", "logits"),
        (lambda: Net(lambda o: None), r"answers a NoneType; it must answer one tensor", "return"),
        (OnlyWhileTraining, r"answers a tuple of Tensor, Tensor; it must answer one tensor", ""),
        (lambda: Net(lambda o: o.squeeze()), r"answers \[3\] for one row and \[2, 3\] for two", r"squeeze\(1\)"),
        (lambda: Net(lambda o: o[:, 0].squeeze()), r"answers \[\] for one row and \[2\] for two", r"squeeze\(1\)"),
        (lambda: Net(lambda o: o.detach()), "answers without a gradient", "no argmax, detach"),
        (
            lambda: Net(lambda o: o.argmax(dim=1, keepdim=True)),
            "answers torch.int64; it must answer floating",
            "argmax",
        ),
        (Stateful, r"holds a dict \(get_extra_state of 'the network'\)", "register_buffer"),
        (Outer, r"holds a dict \(get_extra_state of 'inner'\)", "register_buffer"),
        (on_meta, r"'scale' is no dense tensor with values", ""),
        (lambda: Net(lambda o: o * 0), "answers the same whatever it is asked: it does not read its rows", "argument"),
        (Ignores, "answers the same whatever it is asked", "argument"),
        (
            lambda: Remembers("rows"),
            r"changes what the network holds: 'seen' was float32\[0, 4\] and is float32\[2, 4\] after a call",
            "persistent=False",
        ),
        (lambda: Remembers("notes"), r"'call_1' was not there and is float32\[1\] after a call", "persistent=False"),
        (mixed, r"of 2 types \(float32: layer.weight, layer.bias; float64: aux.weight, aux.bias\)", r"\.float\(\)"),
        (Refuses, r"fails in evaluation mode with 1 row\(s\) of shape \[4\]: ValueError: one row is not", "any number"),
    ],
)
def test_network_that_cannot_be_trained_is_told(make: Callable[[], nn.Module], message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_trainable(make(), "import", (4,))
    assert caught.value.message.startswith("model.kind: import")
    assert re.search(hint, caught.value.hint)


def test_parameters_that_the_forward_does_not_use_are_named() -> None:
    network = Net(unused=True)
    network.layer.bias.requires_grad_(False)
    assert check_trainable(network, "import", (4,)) == ["aux.weight", "aux.bias"]
    assert check_trainable(Net(), "import", (4,)) == []


class Counting(Net):
    calls = 0

    def forward(self, rows: Tensor) -> Any:
        self.calls += 1
        return super().forward(rows)


def test_trying_a_network_is_not_counted_by_it() -> None:
    network = Counting()
    network.calls = 0
    check_trainable(network, "import", (4,))
    assert network.calls == 0


def test_trying_a_network_changes_nothing() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.random.get_rng_state()
    assert check_trainable(network, "import", (4,)) == []
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def zero_head() -> nn.Module:
    network = Net()
    nn.init.zeros_(network.layer.weight)
    return network


class Words(nn.Module):
    """Takes ids below 2 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(2, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids.long()).mean(dim=1)


class Pixels(Net):
    """Sees what is brighter than half of 255."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer((rows > 127).float())


class Centred(Net):
    """Sees how numbers of a row differ, not how large they are."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows - rows.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("make", [zero_head, Words, Pixels, Centred, lambda: Remembers("aside")])
def test_network_that_reads_rows_of_its_own_kind_is_taken(make: Callable[[], nn.Module]) -> None:
    for seed in range(20):  # of whatever first weights
        torch.manual_seed(seed)
        assert check_trainable(make(), "import", (4,)) == []
