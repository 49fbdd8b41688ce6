from __future__ import annotations

import importlib.util
import threading
from functools import cache

import numpy as np
import pytest
import torch

from raypipe.errors import ServeError
from raypipe.model.engines import ENGINES, AnsweringNetwork
from raypipe.model.engines.graphs import Graphs, bucket_of, bucket_sizes
from raypipe.model.engines.onnx import PACKAGES
from raypipe.model.tasks.regression import Regression
from raypipe.testing.contracts import EngineContract

SLOW = ("compile", "onnx")
"""They take seconds to half a minute to be prepared: tests/integration/test_engines.py."""


@cache
def contract(name: str, device: str = "cpu") -> EngineContract:
    return EngineContract(name, device)


@pytest.mark.parametrize("check", EngineContract.checks())
@pytest.mark.parametrize("name", [name for name in ENGINES if name not in SLOW])
def test_engine_keeps_the_contract(name: str, check: str):
    getattr(contract(name), check)()


@pytest.mark.gpu
@pytest.mark.parametrize("check", EngineContract.checks())
@pytest.mark.parametrize("name", ["eager", "traced", "graphs"])
def test_engine_keeps_the_contract_on_a_gpu(name: str, check: str):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    getattr(contract(name, "cuda"), check)()


class Sum(torch.nn.Module):
    """Tells of what it is given: how often, and the largest number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return x.sum(dim=1, keepdim=True)


def test_buckets_are_powers_of_two_up_to_the_first_that_holds_all():
    assert bucket_sizes(1) == [1] and bucket_sizes(6) == [1, 2, 4, 8] and bucket_sizes(256)[-1] == 256
    assert [bucket_of(n) for n in (1, 2, 3, 4, 5, 256, 257)] == [1, 2, 4, 4, 8, 256, 512]


def test_rows_are_called_in_the_smallest_bucket_and_more_than_the_largest_as_they_are():
    network = Sum()
    graphs = Graphs(AnsweringNetwork(network, Regression.read_output), [np.zeros((2, 3), np.float32)], max_rows=8)
    network.sizes.clear()
    for num_rows in (1, 3, 8, 9):
        rows = np.arange(num_rows * 3, dtype=np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(graphs(rows), rows.sum(axis=1))
    assert network.sizes == [1, 4, 8, 9]


def test_padding_is_zeros_and_not_the_rows_of_the_call_before():
    class Whole(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum() + torch.zeros(len(x), 1)

    graphs = Graphs(AnsweringNetwork(Whole(), Regression.read_output), [np.zeros((2, 3), np.float32)], max_rows=4)
    graphs(np.full((4, 3), 7.0, np.float32))
    assert graphs(np.ones((3, 3), np.float32)).tolist() == [9.0, 9.0, 9.0]


def test_calls_of_several_threads_do_not_mix_in_the_buffers():
    graphs = Graphs(AnsweringNetwork(Sum(), Regression.read_output), [np.zeros((2, 3), np.float32)], max_rows=4)
    wrong: list[float] = []

    def ask(value: float) -> None:
        rows = np.full((3, 3), value, np.float32)
        for _ in range(200):
            found = graphs(rows)
            if not (found == 3 * value).all():
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_compile_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ServeError, match=r"needs a C\+\+ compiler.*\n.*g\+\+"):
        ENGINES["compile"](AnsweringNetwork(Sum(), Regression.read_output), [np.zeros((2, 3), np.float32)])


def test_onnx_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES else there(name))
    with pytest.raises(ServeError, match=r"onnxruntime.*not installed.*\n.*raypipe\[onnx\]"):
        ENGINES["onnx"](AnsweringNetwork(Sum(), Regression.read_output), [np.zeros((2, 3), np.float32)])
