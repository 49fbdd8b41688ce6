"""What the model tests share: two small datasets and a folder for a user's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from raypipe.records import DatasetVersion
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


@pytest.fixture
def images(store: LocalFolder) -> DatasetVersion:
    """Twelve 6x6 images of three classes."""
    random = np.random.default_rng(0)
    return tiny_dataset(store, {"image": random.integers(0, 256, (12, 6, 6), np.uint8)}, np.arange(12) % 3)


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
def code_dir(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`code_dir(source)`: a folder whose model.py holds that source; forgotten by Python when the test ends."""
    import sys

    path, made = list(sys.path), tmp_path / "code"

    def write(source: str, folder: str = "a") -> Path:
        (made / folder).mkdir(parents=True, exist_ok=True)
        (made / folder / "model.py").write_text(source)
        return made / folder

    yield write
    sys.path[:] = path
    sys.modules.pop("model", None)
