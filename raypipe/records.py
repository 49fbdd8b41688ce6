"""What stages leave behind: small frozen documents, kept as JSON in the store.

DatasetVersion -> TrainResult (or TuneResult) -> EvaluationReport -> ModelVersion -> Endpoint, BatchOutput
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Value = str | int | float | bool
"""A class label or a category."""


class Record(BaseModel):
    """Base of all records: frozen, closed, written as JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings", val_json_bytes="base64"
    )

    def to_json(self) -> bytes:
        """The stored form."""
        return self.model_dump_json(indent=1).encode()


class Column(Record):
    """One column as it is stored and as a request must give it."""

    name: str
    dtype: str
    """bool, int8..int64, uint8..uint64, float32, float64 or string."""
    shape: tuple[int, ...] = ()
    """Shape of one row's value; () is a scalar."""
    nullable: bool = False
    """Whether a missing value is allowed (an `impute` transform fills it)."""


class Signature(Record):
    """What a model reads and answers."""

    inputs: tuple[Column, ...]
    """Raw feature columns, in order."""
    task: Literal["classification", "regression"]
    target: str
    classes: tuple[Value, ...] | None = None
    """Classification: the label of each output, in order."""


class Shard(Record):
    key: str
    num_rows: int
    size_bytes: int
    sha256: str


class Split(Record):
    """One of train, val, test."""

    num_rows: int
    shards: tuple[Shard, ...]
    """Arrow IPC files in row order; columns: `__row_id` (uint64), the raw features, and the target."""


class DatasetVersion(Record):
    """An immutable dataset: checked rows in splits, and the transforms fitted on train."""

    kind: Literal["dataset"] = "dataset"
    name: str
    version: str
    """Hash of source, spec and content."""
    signature: Signature
    splits: dict[str, Split]
    """train, val, test; an empty split has 0 rows and no shards."""
    transforms: tuple[dict[str, Any], ...]
    """Fitted state of each transform, in order; see data/transforms.py."""
    feature_shape: tuple[int, ...]
    """Shape of one row after the transforms, as the model reads it (float32)."""
    num_bad_rows: int = 0
    bad_rows_key: str | None = None
    """JSON lines of the rows kept aside: row, reason."""
    content_fingerprint: str
    """Same rows, same value, whatever the file order or read parallelism."""


class ArtifactRef(Record):
    """A packaged model in the store."""

    key: str
    """Prefix of its files."""
    digest: str
    """SHA-256 over the digests of its files."""


class EpochMetrics(Record):
    epoch: int
    """From 1."""
    step: int
    """Optimizer steps so far."""
    metrics: dict[str, float]
    """train_loss, val_loss, val_<metric>."""


class TrainResult(Record):
    """One trained model."""

    kind: Literal["train"] = "train"
    run_id: str
    dataset: str
    """DatasetVersion.version it was trained on."""
    artifact: ArtifactRef
    history: tuple[EpochMetrics, ...]
    best_epoch: int
    """The epoch whose weights the artifact holds."""
    num_steps: int
    num_parameters: int
    num_workers: int
    attempts: int = 1
    """1, plus one for each time the workers were started again in this run."""
    stopped_early: bool = False
    rows_per_s: float
    """Training rows per second over all workers, first epoch left out where there are more."""

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the epoch the artifact holds."""
        return next(e.metrics for e in self.history if e.epoch == self.best_epoch)


class Trial(Record):
    """One training inside tune."""

    trial_id: str
    values: dict[str, Any]
    """Field path to value, this point of the space."""
    status: Literal["completed", "stopped", "failed"]
    """`stopped`: the scheduler ended it early."""
    metric: float | None
    epochs: int
    error: str | None = None


class TuneResult(Record):
    """A finished search."""

    kind: Literal["tune"] = "tune"
    metric: str
    mode: Literal["min", "max"]
    best_trial: str
    best_values: dict[str, Any]
    dataset: DatasetVersion
    """The dataset version of the best trial (another than the pipeline's where data fields are searched)."""
    best: TrainResult
    trials: tuple[Trial, ...]


class GateResult(Record):
    metric: str
    rule: str
    """The condition in words, e.g. `accuracy >= 0.96`."""
    found: float
    passed: bool
    reason: str


class EvaluationReport(Record):
    """One artifact scored on the test split, and whether it may be registered."""

    kind: Literal["evaluation"] = "evaluation"
    artifact: ArtifactRef
    dataset: str
    num_rows: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] | None = None
    """Class label -> precision, recall, f1, support."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Rows: true class; columns: predicted class."""
    gates: tuple[GateResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)


class ModelVersion(Record):
    """An immutable numbered model."""

    kind: Literal["model_version"] = "model_version"
    model: str
    version: int
    artifact: ArtifactRef
    signature: Signature
    run_id: str
    dataset: str
    metrics: dict[str, float]
    evaluation: EvaluationReport
    created_at: str
    """UTC, ISO 8601."""
    alias: str | None = None
    """Alias moved to it at registration."""


class Endpoint(Record):
    """A live application."""

    kind: Literal["endpoint"] = "endpoint"
    name: str
    url: str
    """Base address, without a trailing slash."""
    model: str
    version: int
    min_replicas: int
    max_replicas: int
    ingress: Literal["haproxy", "python"]
    probe: dict[str, Any] = {}
    """The request sent after deployment and its answer."""


class BatchOutput(Record):
    """Predictions for a set of rows."""

    kind: Literal["batch"] = "batch"
    model: str
    version: int
    output: str
    num_rows: int
    shards: tuple[str, ...]


StageRecord = DatasetVersion | TrainResult | TuneResult | EvaluationReport | ModelVersion | Endpoint | BatchOutput


def digest_of(digests: dict[str, str]) -> str:
    """One SHA-256 for a set of files, from file name -> SHA-256."""
    text = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()
