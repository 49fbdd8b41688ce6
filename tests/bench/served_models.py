"""The models that the serving benchmarks ask: untrained, as registered versions in a store, and one row for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from raypipe.records import ModelVersion
from raypipe.spec.model import ImportModel, MlpModel, Model
from raypipe.spec.transforms import OneHotTransform, ScaleTransform, StandardizeTransform
from raypipe.storage import Store
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_version

CODE = Path(__file__).parent
"""Where the network of our own is."""

COLORS = ("red", "green", "blue", "white", "black")


def digits_mlp(store: Store, hidden: Sequence[int] = (128,), name: str = "mnist") -> ModelVersion:
    """examples/02_mnist: column `image`, uint8 [28, 28], pixels scaled to [0, 1], 784 - hidden - 10 with dropout."""
    random = np.random.default_rng(0)
    columns = {"image": random.integers(0, 256, (10, 28, 28), np.uint8)}
    scale = ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)
    dataset = tiny_dataset(store, columns, np.arange(10), transforms=[scale], name=name)
    return model_version(store, dataset, name=name, spec=MlpModel(kind="mlp", hidden=list(hidden), dropout_frac=0.2))


def digit() -> NDArray[np.uint8]:
    """One image, [28, 28]."""
    return np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)


def pooled_linear(store: Store, name: str = "photos") -> ModelVersion:
    """Column `image`, float32 [3, 224, 224] -> 10 classes by a linear layer over 7 x 7 means (pooled_network.py)."""
    columns = {"image": np.random.default_rng(0).random((10, 3, 224, 224), np.float32)}
    dataset = tiny_dataset(store, columns, np.arange(10), name=name)
    spec = ImportModel(kind="import", path="pooled_network.py:build")
    return model_version(store, dataset, name=name, spec=spec, code_dir=CODE)


def photo() -> NDArray[np.float32]:
    """One image, [3, 224, 224]."""
    return np.random.default_rng(1).random((3, 224, 224), np.float32)


def colors_network(store: Store, hidden: Sequence[int], name: str, raises: str = "never") -> ModelVersion:
    """A table of 20 numbers and a category (one_hot) -> 3 classes.

    Args:
        raises: `early` or `late`: the network (picky_network.py) raises for rows with a large `x00`, before or after
            its layers were computed.
    """
    random = np.random.default_rng(0)
    numbers = {f"x{i:02d}": random.normal(size=30) for i in range(20)}
    columns = {**numbers, "color": np.array(COLORS * 6, object)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=list(numbers)),
        OneHotTransform(kind="one_hot", columns=["color"]),
    ]
    dataset = tiny_dataset(store, columns, np.arange(30) % 3, transforms=transforms, name=name)
    spec: Model = MlpModel(kind="mlp", hidden=list(hidden))
    if raises != "never":
        arguments = {"hidden": list(hidden), "early": raises == "early"}
        spec = ImportModel(kind="import", path="picky_network.py:build", args=arguments)
    return model_version(store, dataset, name=name, spec=spec, code_dir=CODE)


def color_row(**other: Any) -> dict[str, Any]:
    """One row of that table."""
    return {**{f"x{i:02d}": i / 7 for i in range(20)}, "color": "red", **other}


def instances(*rows: object) -> bytes:
    """The body of a request of these rows; arrays are written as lists."""
    return orjson.dumps({"instances": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
