"""A small training of the network of `raypipe.testing.faults`, which kills its own worker or raises when told to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.testing.fakes import tiny_dataset


def dataset(store: Store) -> DatasetVersion:
    """80 train and 20 val rows of three numbers in two classes."""
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 3)).astype(np.float32)
    return tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)


def pipeline(folder: Path, *, raises: int = 0, **train: Any) -> PipelineSpec:
    """Two workers of half a CPU, 8 steps an epoch, a checkpoint every 3 steps and at each epoch's end."""
    return PipelineSpec.model_validate(
        {
            "name": "faulty",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {
                "kind": "import",
                "path": "faulty_model.py:build",
                "args": {"folder": os.fspath(folder), "raises": raises},
            },
            "train": {
                "num_workers": 2,
                "resources": {"num_cpus": 0.5},
                "epochs": 3,
                "global_batch_size": 10,
                "checkpoint": {"every_steps": 3},
                "optimizer": {"kind": "adamw", "lr": 0.01},
                **train,
            },
        }
    )
