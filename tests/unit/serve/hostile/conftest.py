"""Two replicas that are asked what nobody sends by mistake: one takes pictures, one takes rows of a table."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.serve.app import ModelApp
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import OneHotTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_app, model_version

SPEC = ServeSpec(grpc_port=9000, engine="eager")
"""With gRPC, which no test opens a port for."""


@pytest.fixture(scope="package")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="package")
def pictures(hostile_store: LocalFolder) -> ModelApp:
    """Takes colour images, as arrays and as pictures."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    dataset = tiny_dataset(hostile_store, {"image": images}, np.arange(12) % 3)
    return model_app(hostile_store, model_version(hostile_store, dataset, name="pictures"), SPEC)


@pytest.fixture(scope="package")
def people(hostile_store: LocalFolder) -> ModelApp:
    """Takes rows of a number and a text."""
    columns = {"age": np.arange(12.0), "color": np.array(["red", "blue", "green"] * 4, object)}
    one_hot = OneHotTransform(kind="one_hot", columns=["color"])
    dataset = tiny_dataset(hostile_store, columns, np.arange(12) % 2, transforms=[one_hot])
    return model_app(hostile_store, model_version(hostile_store, dataset, name="people"), SPEC)


@pytest.fixture(params=["people", "pictures"])
def app(request: pytest.FixtureRequest) -> ModelApp:
    return request.getfixturevalue(request.param)
