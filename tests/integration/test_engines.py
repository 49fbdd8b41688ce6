"""Engines with what takes long to load: a C++ compiler, Keras, an export of each network to ONNX."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from raypipe.model.engines import AnsweringNetwork
from raypipe.model.engines.compiled import has_compiler
from raypipe.model.engines.eager import Eager
from raypipe.model.engines.onnx import PACKAGES, Onnx
from raypipe.model.features import Features
from raypipe.model.tasks.classification import Classification
from raypipe.model.zoo import ZOO
from raypipe.spec.model import Model
from raypipe.testing.contracts import EngineContract, ModelContract

KERAS = """
import json
import keras, numpy as np
from raypipe.model.engine_choice import choose_engine
from raypipe.model.engines import AnsweringNetwork
from raypipe.model.engines.eager import Eager
from raypipe.model.tasks.classification import Classification
from raypipe.model.zoo.imported import KerasModule

layers = keras.layers
model = keras.Sequential(
    [layers.Flatten(), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
)
network = AnsweringNetwork(KerasModule(model, (4, 5)).eval(), Classification.read_output)
rows = np.random.default_rng(0).normal(size=(50, 4, 5)).astype(np.float32)
engine, choice = choose_engine("auto", network, rows[:33])
gap = max(float(np.abs(engine(rows[:n]) - Eager(network, ())(rows[:n])).max()) for n in (1, 4, 50))
print(json.dumps({"name": choice.name, "reason": choice.reason, "gap": gap}))
"""


@pytest.mark.timeout(400)
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_network_keeps_the_engine_contract():
    check_contract("compile")


@pytest.mark.skipif(not all(map(importlib.util.find_spec, PACKAGES)), reason="needs raypipe[onnx]")
def test_network_as_onnx_keeps_the_engine_contract():
    check_contract("onnx")


def check_contract(name: str) -> None:
    contract = EngineContract(name)
    for check in EngineContract.checks():
        getattr(contract, check)()


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs raypipe[keras]")
def test_keras_network_is_traced_and_answers_as_eager():
    env = {**os.environ, "KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}  # as raypipe runs a user's Keras
    ran = subprocess.run([sys.executable, "-c", KERAS], env=env, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["name"] == "traced", found
    assert found["gap"] <= 1e-6


@pytest.mark.skipif(not all(map(importlib.util.find_spec, PACKAGES)), reason="needs raypipe[onnx]")
@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind not in ("gpt", "encoder_decoder", "import")])
def test_network_of_the_zoo_is_exported_to_onnx_and_answers_as_eager(kind: str):
    torch.manual_seed(0)
    spec = TypeAdapter[Model](Model).validate_python({"kind": kind, **ModelContract.examples[kind]})
    network = AnsweringNetwork(ZOO[kind](spec, Features((8, 8)), 10), Classification.read_output)
    rows = np.random.default_rng(0).normal(size=(33, 8, 8)).astype(np.float32)
    engine = Onnx(network, [rows[:2]])
    for num in (1, 7, 33):
        np.testing.assert_allclose(engine(rows[:num]), Eager(network, ())(rows[:num]), rtol=0, atol=1e-6)
