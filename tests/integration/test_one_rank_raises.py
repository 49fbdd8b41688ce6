"""One of two ranks meets an error: all end at once with that error, or none waits longer than for its process."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.order import TrainOrder
from tests.integration import one_rank_raises
from tests.integration.rank_processes import run_to_its_end
from tests.unit.train.orders import order

TIMEOUT_S = 150.0
AT_ONCE_S = 20.0
"""On a machine that is busy with something else; torch's own limit is half an hour."""

pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)

OWN = """
import os
import torch
from torch import nn

RANK = int(os.environ.get("RANK", "0"))

class Own(nn.Module):
    def __init__(self, where, norm):
        super().__init__()
        layers = [nn.Linear(3, 8), nn.BatchNorm1d(8) if norm else nn.ReLU(), nn.Linear(8, 2)]
        self.layers = nn.Sequential(*layers)
        self.where, self.calls = where, 0

    def forward(self, x):
        odd = bool((x[:, 0] == 99.0).any())
        if odd and self.where == ("train" if self.training else "val"):
            raise KeyError("a row that this network does not like")
        if odd and self.where == "igloo" and self.training:
            raise ValueError("no such kind: igloo")
        if odd and self.where == "branch" and self.training:
            return self.layers[2](torch.ones(len(x), 8))
        found = self.layers(x)
        if odd and self.where == "backward" and self.training:
            return _Raising.apply(found)
        if odd and self.where == "late" and not self.training:
            raise KeyError("an answer that this network does not like")
        return found

class _Raising(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ZeroDivisionError("in backward")

def build(where="", norm=False):
    return Own(where, norm)

def step(network, features, target, loss):
    first = loss(network(features), target, reduction="mean")
    if (features[:, 0] == 99.0).any():
        raise RuntimeError("a step that fails after it called the network")
    return (first + loss(network(features), target, reduction="mean")) / 2

def step_before(network, features, target, loss):
    if (features[:, 0] == 99.0).any():
        return None
    return loss(network(features), target, reduction="mean")
"""


def _odd(folder: Path, run_id: str, *, where: str = "", norm: bool = False, row: int = 57, **train: Any) -> TrainOrder:
    """Of 60 rows, of which the last 20 are for validation, one is odd: of the last rank."""
    code_dir = folder / "code"
    code_dir.mkdir(exist_ok=True)
    (code_dir / "own_model.py").write_text(OWN)
    x = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    x[row, 0] = 99.0
    data = tiny_dataset(LocalFolder(str(folder)), {"x": x}, np.arange(60) % 2, num_val=20, name=run_id)
    own = {"kind": "import", "path": "own_model.py:build", "args": {"where": where, "norm": norm}}
    return order(folder, run_id, {"num_workers": 2, **train}, model=own, code_dir=code_dir, data=data)


def _plain(folder: Path, run_id: str, **train: Any) -> TrainOrder:
    """Nothing is wrong with it."""
    return order(folder, run_id, {"num_workers": 2, **train})


IN_TRAIN, IN_VAL = 39, 59
"""The odd row: the last of train, and of validation, which the last rank reads."""

ORDERS: dict[str, Callable[[Path, str], TrainOrder]] = {
    "listing": _plain,
    "way": partial(_plain, parallel="auto"),
    "branch": partial(_odd, where="branch", row=IN_TRAIN),
    "branch_accumulated": partial(_odd, where="branch", row=IN_TRAIN, micro_batch_rows=2),
    "branch_first": partial(_odd, where="branch", row=IN_TRAIN, global_batch_size=40),
    "reading_before": lambda folder, run_id: _plain(folder, "reading", epochs=1),
    "reading": _plain,
    "forward": partial(_odd, where="train", row=IN_TRAIN),
    "forward_norm": partial(_odd, where="train", row=IN_TRAIN, norm=True),
    "forward_accumulated": partial(_odd, where="train", row=IN_TRAIN, norm=True, micro_batch_rows=2),
    "forward_scaled": partial(_odd, where="train", row=IN_TRAIN, precision="float16"),
    "first_step": partial(_odd, where="train", row=IN_TRAIN, global_batch_size=40),
    "step": partial(_odd, row=IN_TRAIN, norm=True, step="own_model.py:step"),
    "step_before": partial(_odd, row=IN_TRAIN, norm=True, step="own_model.py:step_before"),
    "validation": partial(_odd, where="val", row=IN_VAL),
    "igloo": partial(_odd, where="igloo", row=IN_TRAIN),
    "alone_backward": partial(_odd, where="backward", row=IN_TRAIN),
    "alone_synced": partial(_odd, where="train", row=IN_TRAIN, norm=True, sync_batch_norm=True),
    "alone_sharded": partial(_odd, where="train", row=IN_TRAIN, parallel="sharded"),
    "alone_sharded_validation": partial(_odd, where="late", row=IN_VAL, parallel="sharded"),
}

WORDS = {
    "listing": ("StoreError", "rank 0 asks in vain"),
    "way": ("StoreError", "rank 0 asks in vain"),
    "branch": ("", ""),
    "branch_accumulated": ("", ""),
    "branch_first": ("", ""),
    "reading_before": ("", ""),
    "reading": ("OSError", "Input/output error"),
    "forward": ("UserCodeError", "does not like"),
    "forward_norm": ("UserCodeError", "does not like"),
    "forward_accumulated": ("UserCodeError", "does not like"),
    "forward_scaled": ("UserCodeError", "does not like"),
    "first_step": ("UserCodeError", "its first step, which changes nothing, worker 1 of 2"),
    "step": ("UserCodeError", "fails after it called the network"),
    "step_before": ("UserCodeError", "answered nothing for"),
    "validation": ("UserCodeError", "validation after step"),
    "igloo": ("UserCodeError", "no such kind: igloo"),
    "alone_backward": ("UserCodeError", "in backward"),
    "alone_synced": ("UserCodeError", "does not like"),
    "alone_sharded": ("UserCodeError", "does not like"),
    "alone_sharded_validation": ("UserCodeError", "validation after step"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """How each rank of each order ended."""
    folder = tmp_path_factory.mktemp("raises")
    orders = {name: make(folder / "store", name) for name, make in ORDERS.items()}
    (folder / "orders.pickle").write_bytes(pickle.dumps(orders))
    run_to_its_end(one_rank_raises, folder, TIMEOUT_S)
    names = [*ORDERS, "differences"]
    return {name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)] for name in names}


@pytest.mark.parametrize("name", [name for name in ORDERS if name.split("_")[0] not in ("alone", "reading", "branch")])
def test_run_one_rank_that_fails_ends_all_at_once_with_its_error(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    error, words = WORDS[name]

    assert [answer["error"] for answer in answers[name]] == [error, error]
    assert len({answer["message"] for answer in answers[name]}) == 1
    assert words in answers[name][0]["message"]
    assert max(answer["seconds"] for answer in answers[name]) < AT_ONCE_S


@pytest.mark.parametrize("name", [name for name in ORDERS if name.startswith("branch")])
def test_run_network_that_leaves_parameters_out_on_one_rank_is_trained(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    """DDP would wait for their gradient, and the other rank be in another collective meanwhile."""
    assert [answer["error"] for answer in answers[name]] == ["", ""], answers[name]


def test_gradient_where_one_rank_leaves_parameters_out_is_the_mean_of_all(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    for found in answers["differences"]:
        assert found.keys() == {"one", "both", "last", "first"}
        assert max(found.values()) < 1e-6


def test_run_one_rank_that_meets_an_error_of_no_known_kind_ends_all_at_once(
    answers: dict[str, list[dict[str, Any]]],
) -> None:
    other, failed = answers["reading"]

    assert [answer["error"] for answer in answers["reading_before"]] == ["", ""]
    assert failed["error"] == "OSError" and not failed["is_from_peers"]
    # What the rank itself tells counts, and is tried again; the other only says that this one is gone.
    assert other["error"] == "PeerRaised" and other["is_from_peers"]
    assert "worker 1 of 2 raised OSError: [Errno 5] Input/output error" in other["message"]
    assert max(other["seconds"], failed["seconds"]) < AT_ONCE_S


@pytest.mark.parametrize("name", [name for name in ORDERS if one_rank_raises.raises_alone(name)])
def test_run_one_rank_that_fails_where_others_compute_with_it_tells_its_error_at_once(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    error, words = WORDS[name]
    waiting, failed = answers[name]

    assert failed["error"] == error and words in failed["message"]
    assert failed["seconds"] < AT_ONCE_S and waiting["seconds"] < AT_ONCE_S
    assert waiting["is_from_peers"]
