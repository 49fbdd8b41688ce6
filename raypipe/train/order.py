"""What the workers of a training are told; without torch, as the driver writes it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from raypipe.model import own_code
from raypipe.records import ArtifactRef, DatasetVersion
from raypipe.spec.base import fingerprint
from raypipe.spec.model import ImportModel
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.storage.layout import WEIGHTS
from raypipe.storage.publish import read_published


@dataclass(frozen=True)
class TrainOrder:
    """What a worker is told; plain values, so that it travels to any process.

    Attributes:
        checkpoints: keep checkpoints under the run, and continue from the newest.
        side_by_side: trainings on a node at one time, which share its memory.
        first_weights: what `model.init_from` names; None: it names nothing.
        asked_at: Unix time, s, of the order itself: it outlives workers that are lost.
    """

    spec: PipelineSpec
    dataset: DatasetVersion
    store_uri: str
    run_id: str
    artifact_key: str
    code_dir: Path | None = None
    checkpoints: bool = True
    side_by_side: int = 1
    first_weights: ArtifactRef | None = None
    asked_at: float = field(default_factory=time.time, compare=False)

    def read_first_weights(self, store: Store) -> bytes | None:
        """The file of weights that the training starts from, every byte checked; None: the seed decides.

        Raises:
            DigestMismatch, ObjectMissing: it is damaged, or not there.
        """
        ref = self.first_weights
        return None if ref is None else read_published(store, ref.key, [WEIGHTS], digest=ref.digest)[WEIGHTS]

    def fingerprint(self) -> str:
        """Of all that shapes the weights so far, but for the last bits; a training may be made longer where its
        schedule does not mind."""
        model, shaping = self.spec.model, self.spec.train.shaping()
        del shaping["num_workers"]  # another number may go on where an epoch ended
        if not self.spec.train.schedule.spans_training:
            del shaping["epochs"]
        code = own_code.source_digests(model.path, self.code_dir) if isinstance(model, ImportModel) else None
        step = self.spec.train.step
        step_code = [own_code.source_digests(step, self.code_dir)] if step is not None else []
        start = [] if self.first_weights is None else [self.first_weights.digest]
        described = model.shaping()
        return fingerprint(shaping, described, code, self.dataset.version, self.spec.seed, *step_code, *start)
