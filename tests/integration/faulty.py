"""A small training whose network breaks on purpose: it kills its own worker, or raises, where it was asked to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.testing.fakes import tiny_dataset

FAULTY_NETWORK = """
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn


class Faulty(nn.Module):
    \"\"\"Each line of plan.txt, `RANK CALL`, kills that rank at that training call of an attempt, once.\"\"\"

    def __init__(self, folder, raises):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
        self.folder, self.raises, self.calls = Path(folder), raises, 0

    def forward(self, x):
        if self.training:
            self.calls += 1
            done = len(list(self.folder.glob("killed-*")))
            plan = (self.folder / "plan.txt").read_text().split("\\n") if (self.folder / "plan.txt").exists() else []
            if done < len(plan) and plan[done] == f"{dist.get_rank()} {self.calls}":
                (self.folder / f"killed-{done:02d}").write_text(f"{os.getpid()} {self.calls}")
                os.kill(os.getpid(), signal.SIGKILL)
            if self.raises and self.calls == self.raises:
                raise RuntimeError("the network does not feel like it")
        return self.layers(x)


def build(folder, raises=0):
    return Faulty(folder, raises)
"""


def write_network(folder: Path, plan: list[str]) -> Path:
    """A code_dir with the network, and the kills that it shall do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faulty_model.py").write_text(FAULTY_NETWORK)
    (folder / "plan.txt").write_text("\n".join(plan))
    return folder


def kills(folder: Path) -> list[tuple[int, int]]:
    """(pid, call) of each kill that was done."""
    pairs = (path.read_text().split() for path in sorted(folder.glob("killed-*")))
    return [(int(pid), int(call)) for pid, call in pairs]


def is_gone(pid: int) -> bool:
    """Whether no such process runs."""
    return not Path(f"/proc/{pid}").exists()


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
