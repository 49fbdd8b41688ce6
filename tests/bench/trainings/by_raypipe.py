"""Our loop: raypipe.train.loop.run, a checkpoint an epoch included; several ranks where torchrun started several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it runs as a file

import torch.distributed as dist

from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage.local import LocalFolder
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.bench.trainings.turns import Stopwatch, Turn, Work, take_turns

IMAGES = {"source": {"format": "idx", "images": "images", "labels": "labels"}, "target": "y"}
TEXT = {"task": "language_model", "source": {"format": "text_windows", "path": "text.txt", "context_length": 64}}
"""What the file would say of the rows, which are in the store already."""


def prepare(work: Work) -> Callable[[], Turn]:
    dataset = DatasetVersion.model_validate_json((work.folder / "dataset.json").read_text())
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    spec = PipelineSpec.model_validate(
        {
            "name": "bench",
            "data": TEXT if work.kind == "gpt" else IMAGES,
            "model": work.model,
            "train": {
                "num_workers": size,
                "epochs": work.epochs,
                "global_batch_size": work.batch,
                "optimizer": {"kind": "adam", "lr": work.lr},
            },
        }
    )

    def turn() -> Turn:
        name = [f"r{time.time_ns()}"]
        if size > 1:
            dist.broadcast_object_list(name, src=0)
        order = TrainOrder(spec, dataset, str(work.folder / "store"), name[0], f"runs/{name[0]}/artifact")
        stopwatch = Stopwatch()

        def told(event: dict[str, Any]) -> None:
            if event["event"] in ("start", "epoch"):
                stopwatch.mark()

        result = loop.run(order, World(rank, size, local_size=size), told)
        return stopwatch, accuracy(result.artifact)

    def accuracy(artifact: Any) -> float | None:
        if work.kind != "mnist" or rank != 0:
            return None
        predictor = Predictor.load(LocalFolder(str(work.folder / "store")), artifact)
        images = (work.rows("test")[0] * 255).round().byte().numpy()
        return float((predictor.predict({"image": images}).labels() == work.rows("test")[1].numpy()).mean())

    return turn


if __name__ == "__main__":
    take_turns(prepare)
