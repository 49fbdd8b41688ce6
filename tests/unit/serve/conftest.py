"""What the serve tests share: a small classifier of images and a small regression on a table, as replicas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypipe.records import DatasetVersion
from raypipe.serve.app import ModelApp
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_app, model_version

# Each test has a replica of its own; preparing the faster engine would take most of its time (test_parity.py has one).
SMALL = ServeSpec(max_body_bytes=4096, max_request_rows=20, request_timeout_s=30, engine="eager")


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


@pytest.fixture
def images(store: LocalFolder) -> DatasetVersion:
    """Twelve 4x3 images of three classes."""
    random = np.random.default_rng(0)
    return tiny_dataset(store, {"image": random.integers(0, 256, (12, 4, 3), np.uint8)}, np.arange(12) % 3)


@pytest.fixture
def table(store: LocalFolder) -> DatasetVersion:
    """Twelve rows of a number and a category; the target is a number."""
    random = np.random.default_rng(1)
    columns = {"age": random.normal(40, 9, 12), "color": np.array(["red", "blue", "green"] * 4, object)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=["age"]),
        OneHotTransform(kind="one_hot", columns=["color"]),
    ]
    return tiny_dataset(store, columns, random.normal(size=12), task="regression", transforms=transforms)


@pytest.fixture
def classifier(store: LocalFolder, images: DatasetVersion) -> ModelApp:
    return model_app(store, model_version(store, images, name="shapes", version=7), SMALL)


@pytest.fixture
def regressor(store: LocalFolder, table: DatasetVersion) -> ModelApp:
    return model_app(store, model_version(store, table, name="prices"), SMALL)


@pytest.fixture
def hasty(store: LocalFolder, table: DatasetVersion) -> ModelApp:
    """The regression, with a fifth of a second for an answer."""
    spec = SMALL.model_copy(update={"request_timeout_s": 0.2})
    return model_app(store, model_version(store, table, name="prices"), spec)
