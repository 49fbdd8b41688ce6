"""What the workers of a training are told; without torch, as the driver writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raypipe.model import own_code
from raypipe.records import DatasetVersion
from raypipe.spec.base import fingerprint
from raypipe.spec.model import ImportModel
from raypipe.spec.pipeline import PipelineSpec


@dataclass(frozen=True)
class TrainOrder:
    """What a worker is told; plain values, so that it travels to any process.

    Attributes:
        checkpoints: keep checkpoints under the run, and continue from the newest.
        side_by_side: trainings on a node at one time, which share its memory.
    """

    spec: PipelineSpec
    dataset: DatasetVersion
    store_uri: str
    run_id: str
    artifact_key: str
    code_dir: Path | None = None
    checkpoints: bool = True
    side_by_side: int = 1

    def fingerprint(self) -> str:
        """Of all that shapes the weights so far: a training may be made longer where its schedule does not mind."""
        model, shaping = self.spec.model, self.spec.train.shaping()
        if self.spec.train.schedule.kind != "cosine":
            del shaping["epochs"]
        code = own_code.source_digests(model.path, self.code_dir) if isinstance(model, ImportModel) else None
        return fingerprint(shaping, model.model_dump(mode="json"), code, self.dataset.version, self.spec.seed)
