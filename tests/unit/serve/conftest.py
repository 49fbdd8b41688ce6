"""What the serve tests share: a small classifier of images and a small regression on a table, as replicas."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import numpy as np
import pytest

from raypipe.records import DatasetVersion
from raypipe.serve.app import ModelApp
from raypipe.serve.batching import Batcher
from raypipe.serve.room import Room
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset, tiny_nested
from raypipe.testing.served import model_app, model_version

# Preparing the faster engine would take most of a replica's start (test_parity.py has one).
SMALL = ServeSpec(max_body_bytes=4096, max_request_rows=20, request_timeout_s=30, engine="eager")


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


@pytest.fixture
def images(store: LocalFolder) -> DatasetVersion:
    return images_in(store)


def images_in(store: LocalFolder) -> DatasetVersion:
    """Twelve 4x3 images of three classes."""
    random = np.random.default_rng(0)
    return tiny_dataset(store, {"image": random.integers(0, 256, (12, 4, 3), np.uint8)}, np.arange(12) % 3)


@pytest.fixture
def table(store: LocalFolder) -> DatasetVersion:
    return table_in(store)


def table_in(store: LocalFolder) -> DatasetVersion:
    """Twelve rows of a number and a category; the target is a number."""
    random = np.random.default_rng(1)
    columns = {"age": random.normal(40, 9, 12), "color": np.array(["red", "blue", "green"] * 4, object)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=["age"]),
        OneHotTransform(kind="one_hot", columns=["color"]),
    ]
    return tiny_dataset(store, columns, random.normal(size=12), task="regression", transforms=transforms)


@pytest.fixture(scope="session")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `classifier` and `regressor` were read from."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="session")
def kept_classifier(kept_folder: Path) -> ModelApp:
    store = LocalFolder(str(kept_folder / "images"))
    return model_app(store, model_version(store, images_in(store), name="shapes", version=7), SMALL)


@pytest.fixture(scope="session")
def kept_regressor(kept_folder: Path) -> ModelApp:
    store = LocalFolder(str(kept_folder / "table"))
    return model_app(store, model_version(store, table_in(store), name="prices"), SMALL)


@pytest.fixture(scope="session")
def kept_labeller(kept_folder: Path) -> ModelApp:
    """Rows of two numbers may have any of three labels."""
    store = LocalFolder(str(kept_folder / "labels"))
    columns = {"age": np.arange(12.0), "size": np.arange(12.0)[::-1].copy()}
    target = np.array(["a;b", "", "b;c d"] * 4, object)
    return model_app(
        store, model_version(store, tiny_dataset(store, columns, target, task="multi_label"), name="tags"), SMALL
    )


@pytest.fixture(scope="session")
def kept_pair(kept_folder: Path) -> ModelApp:
    """Two numbers from two."""
    store = LocalFolder(str(kept_folder / "pair"))
    columns = {"age": np.arange(12.0), "size": np.arange(12.0)[::-1].copy()}
    target = np.random.default_rng(2).normal(size=(12, 2))
    return model_app(
        store, model_version(store, tiny_dataset(store, columns, target, task="regression"), name="pair"), SMALL
    )


@pytest.fixture(scope="session")
def kept_nested(kept_folder: Path) -> ModelApp:
    store = LocalFolder(str(kept_folder / "nested"))
    return model_app(store, model_version(store, tiny_nested(store), name="users"), SMALL)


@pytest.fixture
def nested(kept_nested: ModelApp) -> ModelApp:
    return replica_like(kept_nested)


@pytest.fixture
def classifier(kept_classifier: ModelApp) -> ModelApp:
    return replica_like(kept_classifier)


@pytest.fixture
def regressor(kept_regressor: ModelApp) -> ModelApp:
    return replica_like(kept_regressor)


@pytest.fixture
def labeller(kept_labeller: ModelApp) -> ModelApp:
    return replica_like(kept_labeller)


@pytest.fixture
def pair(kept_pair: ModelApp) -> ModelApp:
    return replica_like(kept_pair)


def replica_like(app: ModelApp) -> ModelApp:
    """One that shares what is only read: the model, its checker, its pages.

    Its routes may be added to, and its batcher waits in the event loop that asked it first: each test has its own.
    """
    own = copy(app)
    own.routes = copy(app.routes)
    own.routes._routes = dict(app.routes._routes)
    own._batcher = Batcher(app.predictor.answer, app.spec.batching, app.spec.request_timeout_s)
    own.room = Room(app.spec)
    return own


@pytest.fixture
def hasty(store: LocalFolder, table: DatasetVersion) -> ModelApp:
    """The regression, with a fifth of a second for an answer."""
    spec = SMALL.model_copy(update={"request_timeout_s": 0.2})
    return model_app(store, model_version(store, table, name="prices"), spec)
