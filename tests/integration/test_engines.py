"""Engines with what takes long to load: a C++ compiler, Keras."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from raypipe.model.engines.compiled import has_compiler
from raypipe.testing.contracts import EngineContract

KERAS = """
import json
import keras, numpy as np
from raypipe.model.engine_choice import choose_engine
from raypipe.model.engines import AnsweringNetwork
from raypipe.model.engines.eager import Eager
from raypipe.model.zoo.imported import KerasModule

layers = keras.layers
model = keras.Sequential(
    [layers.Flatten(), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
)
network = AnsweringNetwork(KerasModule(model, (4, 5)).eval(), is_classifier=True)
rows = np.random.default_rng(0).normal(size=(50, 4, 5)).astype(np.float32)
engine, choice = choose_engine("auto", network, rows[:33])
gap = max(float(np.abs(engine(rows[:n]) - Eager(network, ())(rows[:n])).max()) for n in (1, 4, 50))
print(json.dumps({"name": choice.name, "reason": choice.reason, "gap": gap}))
"""


@pytest.mark.timeout(400)
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_network_keeps_the_engine_contract():
    contract = EngineContract("compile")
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
