"""What stages leave behind: small frozen documents, kept as JSON in the store.

DatasetVersion -> TrainResult (or TuneResult) -> EvaluationReport -> ModelVersion -> Endpoint, BatchOutput

One file although it is long: each document holds the ones before it, stages of different rooms meet here and nowhere
else, and whoever reads it once knows what the whole store holds.  A record is read by every later stage and travels
with every version, so no list in it may grow with the rows: those that follow the data are cut (`top`, `first`), kept
under a key of their own (`profile_key`, `confusion_key`, `details_key`, `bad_rows_key`), or bounded
(classes, categories).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

Value = str | int | float | bool
"""A class label or a category."""


class Record(BaseModel):
    """Base of all records: frozen, closed, written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", val_json_bytes="base64")

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
    is_list: bool = False
    """Whether a row holds several texts; they are kept as one, see data/table/text_lists.py."""

    @property
    def empty_text(self) -> str:
        """What stands for no text at all."""
        return "[]" if self.is_list else ""


class Reading(Record):
    """How the rows a model learned were read, so that the rows it is asked about are read alike."""

    format: Annotated[str, AfterValidator(lambda name: "sound" if name == "wav" else name)]
    """As in data.source.format; `wav` is an older name of `sound`."""
    settings: dict[str, Any] = {}
    """The other fields of data.source, without paths and without the choice of columns and rows."""

    @property
    def null_words(self) -> frozenset[str]:
        """Texts that mean 'no value'; empty for formats that have a null of their own."""
        return frozenset(word for word in self.settings.get("null_values", ()) if isinstance(word, str))


class Language(Record):
    """What a model writes that writes texts."""

    context_length: int = Field(ge=1)
    """The most tokens it looks back on; of sequence to sequence the most of a target, its end included."""
    tokens: tuple[str, ...]
    """Characters that train holds; ids count from 2 in this order, behind padding and unknown characters."""
    tokenizer: Literal["char", "byte", "bpe"] = "char"
    """`byte`: tokens are the 256 bytes of UTF-8, in order, and `tokens` is empty. `bpe`: these and `merges`."""
    merges: tuple[tuple[int, int], ...] = ()
    """Pairs of ids that became one token, in order; each has the next id behind those of the bytes."""
    refuse: tuple[Literal["empty", "too_long", "unknown"], ...] = ()
    """Targets that are refused, as in data.target_tokens."""


class LabelSets(Record):
    """How sets of labels are stored, and when a model gives one."""

    separator: str | None
    """Between the labels of a stored text; None: each label is a column of true/false."""
    threshold: float = Field(gt=0, lt=1)
    """A label is given where its probability is at least this."""


class Signature(Record):
    """What a model reads and answers."""

    inputs: Annotated[tuple[Column, ...], FailFast()]
    """Raw feature columns, in order."""
    task: Literal["classification", "multi_label", "regression", "language_model", "sequence_to_sequence"]
    target: str | tuple[str, ...]
    """The column that is predicted, or several."""
    classes: tuple[Value, ...] | None = None
    """Classification and multi-label: the label of each output, in order."""
    label_sets: LabelSets | None = None
    """Multi-label: how they are stored and given."""
    language: Language | None = None
    """Of a task whose answers are texts, their tokens. Known once the transforms are fitted."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """Columns or fields that are not among the inputs: left out, or refused by name (data.policy)."""
    reading: Reading | None = None
    """None: not known, as of versions registered before it was kept."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def target_problem(self) -> str:
        """What is wrong with several targets; empty: nothing."""
        if isinstance(self.target, str) or len(self.target) == len(set(self.target)) > 1:
            return ""
        return "signature.target: several must be two or more, and each once"

    @property
    def target_text(self) -> str:
        """The targets in words."""
        return ", ".join(self.targets)

    @property
    def null_words(self) -> frozenset[str]:
        """Texts that mean 'no value' in an input, in training, batch inference and requests alike."""
        return self.reading.null_words if self.reading is not None else frozenset()


class Shard(Record):
    key: str
    num_rows: int
    size_bytes: int
    sha256: str


class Split(Record):
    """One of train, val, test."""

    num_rows: int
    shards: tuple[Shard, ...]
    """Arrow IPC files in row order; columns: `__row_id` (uint64), the raw features, the target, and the weight."""


class TargetStatistics(Record):
    """What the train split's regression target holds."""

    num_rows: int
    min: float
    max: float
    mean: float
    std: float
    """Population standard deviation."""
    num_not_positive: int
    """Rows whose target is 0 or less."""
    log_mean: float | None
    """Of the natural logarithms; None where a row has none."""
    log_std: float | None


Finite = Annotated[float, Field(allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TargetTransform(Record):
    """What was done to the target before the network learned it (train.target_transform): `standardize` trains on
    (target - mean) / std, `log` on (ln target - mean) / std. Predictions undo it."""

    kind: Literal["none", "standardize", "log"] = "none"
    mean: Finite | tuple[Finite, ...] = 0.0
    """Of several targets: of each."""
    std: AboveZero | tuple[AboveZero, ...] = 1.0


class RowWeights(Record):
    """How much the rows of a dataset version count (data.weight); each sum is above 0."""

    column: str
    sums: dict[str, float]
    """Split -> the sum of its rows' weights."""
    of_classes: tuple[float, ...] | None = None
    """Classification: the same of the train rows of each class."""


WarningKind = Literal[
    "row_number",
    "identifier",
    "constant",
    "leak",
    "no_class",
    "spelling",
    "few_rows",
    "long_tail",
    "split_drift",
]


class DataWarning(Record):
    """Something that the rows show and that is worth acting on before a model learns from them."""

    kind: WarningKind
    columns: tuple[str, ...]
    """Those it is about, the first 10 of them."""
    text: str
    """Columns, what was found, with figures, and the setting that acts on it, in one line."""


class DatasetVersion(Record):
    """An immutable dataset: checked rows in splits, and the transforms fitted on train."""

    kind: Literal["dataset"] = "dataset"
    name: str
    version: str
    """Hash of source, spec and content."""
    signature: Signature
    splits: dict[str, Split]
    """train, val, test; an empty split has 0 rows and no shards."""
    row_identity: Literal["all_columns", "features_and_target"] = "all_columns"
    """What makes two rows the same one, for `__row_id`, the split by hash and the copies that leak; `all_columns` in
    versions prepared before it was kept."""
    split_state: dict[str, Any] = {}
    """Where the borders between the splits are, for kinds of split that depend on all rows; see data/splits."""
    transforms: tuple[dict[str, Any], ...]
    """Fitted state of each transform, in order; see data/transforms.py."""
    feature_shape: tuple[int, ...]
    """Shape of one row after the transforms, as the model reads it (float32)."""
    num_bad_rows: int = 0
    bad_rows_key: str | None = None
    """JSON lines of the rows kept aside: row, reason."""
    profile_key: str | None = None
    """The DataProfile: what each column holds, and which expectations it met."""
    content_fingerprint: str
    """Same rows, same value, whatever the file order or read parallelism."""
    target_statistics: TargetStatistics | tuple[TargetStatistics, ...] | None = None
    """Regression: what a training may scale the target by; of several targets: each. None in versions prepared before
    these were kept."""
    class_counts: tuple[int, ...] | None = None
    """Classification and multi-label: rows of train in each class. None in versions prepared before these were kept."""
    warnings: tuple[DataWarning, ...] = ()
    """What the rows show that is worth acting on, at most 50."""
    notes: tuple[str, ...] = ()
    """What was told of how the files were read and of what was recognised in their columns, at most 200 lines."""
    weights: RowWeights | None = None
    """None: all rows count alike."""

    def mean_weight(self, split: str) -> float | None:
        """Of the rows of a split that has any; None where all rows count alike."""
        return None if self.weights is None else self.weights.sums[split] / self.splits[split].num_rows


class TopValue(Record):
    value: Value
    """Text is cut after 100 characters."""
    count: int


class Histogram(Record):
    """Equal bins from the smallest to the largest value; one bin where there is one value."""

    edges: tuple[float, ...]
    """One more than counts."""
    counts: tuple[int, ...]


class TextLengths(Record):
    """In characters."""

    min: int
    max: int
    mean: float


class ColumnProfile(Record):
    """What one column holds. Counts, min, max, mean and std are of all rows; the rest says on what it rests."""

    name: str
    dtype: str
    """bool, a number's type, or string."""
    shape: tuple[int, ...] = ()
    """Arrays have count, nulls, zeros, min, max, mean and std alone, over all their values."""
    count: int
    """Values, missing ones too."""
    nulls: int
    """Missing values: null or NaN."""
    infinite: int = 0
    """Left out of all figures below."""
    zeros: int | None = None
    min: int | float | None = None
    max: int | float | None = None
    mean: float | None = None
    std: float | None = None
    """Population standard deviation."""
    distinct: int | None = None
    """Different values; None where there are more than 1,000, or a text of more than 256 characters."""
    is_exact: bool = True
    """Whether quantiles, histogram and top are of all rows; else they are of the rows whose id is among the 10,000
    smallest, which is a uniform sample of the distinct rows."""
    counted: int = 0
    """Values that quantiles, histogram and top rest on."""
    num_different: int | None = None
    """Different ones among them. None in profiles written before it was kept."""
    quantiles: dict[str, float] = {}
    """`0.01` ... `0.99` -> value: the smallest one that at least this share of the values does not exceed."""
    grid: tuple[float, ...] = ()
    """The quantiles 0, 1/200, ... 1: the distribution that drift is measured against."""
    histogram: Histogram | None = None
    top: tuple[TopValue, ...] = ()
    """The most frequent values, at most 100; ties in order of the value."""
    lengths: TextLengths | None = None


class BrokenRow(Record):
    row_number: int
    """From 1, in the order of the files."""
    source: str = "source"
    """Which field of the spec names the files: source, val_source or test_source."""
    found: str
    """The value, shortened; of a row that repeats another one, which."""


class ExpectationResult(Record):
    """Whether one expectation of `data.expectations` holds for one column (or the columns it is about together)."""

    index: int
    """Position in data.expectations, from 0."""
    kind: str
    columns: tuple[str, ...]
    rule: str
    """The expectation in words."""
    on_fail: Literal["fail", "warn", "quarantine"]
    passed: bool
    num_checked: int = 0
    """Rows that had a value to look at."""
    num_broken: int = 0
    first: tuple[BrokenRow, ...] = ()
    """The first rows that break it, at most 5."""
    detail: str = ""
    """What was found, for expectations that are not about single rows; or a guess at what is wrong."""


class DataProfile(Record):
    """What a dataset version holds, column by column, and which expectations it met."""

    kind: Literal["profile"] = "profile"
    name: str
    version: str
    num_rows: int
    columns: tuple[ColumnProfile, ...]
    expectations: tuple[ExpectationResult, ...] = ()

    def column(self, name: str) -> ColumnProfile | None:
        """The profile of one column; None where there is no such column."""
        return next((column for column in self.columns if column.name == name), None)


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
    """train_loss, val_loss, val_<metric>; of a regression in the target's unit (losses mse and huber: squared), but for
    the losses under target_transform `log`, which are of the target's natural logarithm."""


class Goodput(Record):
    """Where a training's time went, from when its workers were asked for to the end of its first worker.

    Each second is in one part. Workers that were lost and their restarts are in it; where another command went on with
    the training, neither the time between the two nor what the first one did after its last checkpoint is.
    """

    share: float
    """Of the whole time, that of optimizer steps that count."""
    steps_s: float
    """Optimizer steps that count: each once, however often it was done."""
    starting_s: float
    """Until the first step of each command: workers are placed and start, data, network and checkpoint are read."""
    rows_s: float
    """Steps waited for their rows."""
    validation_s: float
    checkpoints_s: float
    """Steps waited for checkpoints: for copies, and for writes before."""
    failures_s: float
    """Lost with workers: steps that were done again, and the start of new workers."""
    packaging_s: float
    mfu: float | None = None
    """Model FLOPs utilization: FLOPs of forward and backward passes at `rows_per_s` by what the workers' GPUs could do
    at most in this precision; None on CPUs, and where either is not known."""

    @property
    def whole_s(self) -> float:
        """Seconds of all parts."""
        return sum(getattr(self, f"{name}_s") for name in ("steps", *_OTHER_PARTS))

    @property
    def text(self) -> str:
        """One line: `goodput 0.87: steps 41.2 s of 47.3 s; starting 3.1 s, validation 1.9 s`, the largest first."""
        others = {told: getattr(self, f"{name}_s") for name, told in _OTHER_PARTS.items()}
        named = sorted(others.items(), key=lambda item: -item[1])
        rest = ", ".join(f"{told} {seconds:.1f} s" for told, seconds in named if seconds >= 0.05)
        used = "" if self.mfu is None else f"; MFU {self.mfu:.2f}"
        steps = f"steps {self.steps_s:.1f} s of {self.whole_s:.1f} s"
        return f"goodput {self.share:.2f}: {steps}{'; ' if rest else ''}{rest}{used}"


_OTHER_PARTS = {
    "starting": "starting",
    "rows": "waiting for rows",
    "validation": "validation",
    "checkpoints": "checkpoints",
    "failures": "lost to failures",
    "packaging": "packaging",
}
"""Of a Goodput, beside the steps: field without its unit -> in words."""


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
    workers_by_attempt: tuple[int, ...] = ()
    """How many workers each attempt had, where their number was elastic."""
    stopped_early: bool = False
    rows_per_s: float
    """Training rows per second over all workers, first epoch left out where there are more."""
    target_transform: TargetTransform = TargetTransform()
    quantile: float | None = None
    """That the model tells (train.loss: quantile); None: a mean, or what else its loss leads to."""
    weighted_by: str | None = None
    """Column by which rows count in losses and metrics (data.weight); None: all count alike."""
    goodput: Goodput | None = None
    """Where its time went; None in trainings from before it was kept."""

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the epoch the artifact holds."""
        return next(e.metrics for e in self.history if e.epoch == self.best_epoch)


class Trial(Record):
    """One training inside tune."""

    trial_id: str
    values: dict[str, Any]
    """Field path to value, this point of the space."""
    status: Literal["completed", "stopped", "diverged", "failed"]
    """`stopped`: the scheduler, or the end of the search's time, ended it early; `diverged`: its loss became NaN or
    infinite."""
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
    weighted_by: str | None = None
    """Column by which rows count in `metrics` and `per_class` (data.weight); None: all count alike."""
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] | None = None
    """Class label -> precision, recall, f1, support; None where there are more than 100 classes."""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Rows: true class; columns: predicted class; None where there are more than 100 classes."""
    confusion_key: str | None = None
    """With more than 100 classes: a CSV of true class, predicted class and number of rows. This record travels with
    every version and to every replica, so it must not grow with the square of the classes."""
    details_key: str | None = None
    """EvaluationDetails: calibration, residuals, the worst rows."""
    gates: tuple[GateResult, ...] = ()

    @property
    def rows_text(self) -> str:
        """What was measured, in words: `366 test rows weighted by w`."""
        return f"{self.num_rows} test rows{self.weighted_text}"

    @property
    def weighted_text(self) -> str:
        """` weighted by w`, behind a word for rows; empty where all count alike."""
        return "" if self.weighted_by is None else f" weighted by {self.weighted_by}"

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)

    def judges_as(self, other: EvaluationReport) -> bool:
        """Whether both say the same of the same artifact, wherever the rest lies."""
        apart = {"confusion_key": None, "details_key": None}
        return self.model_copy(update=apart) == other.model_copy(update=apart)


class CalibrationBin(Record):
    """Test rows of whose answers the model was about equally sure."""

    num_rows: int
    confidence: float
    """Mean probability of the answered class."""
    accuracy: float
    """Share of these answers that are right."""


class Residuals(Record):
    """How far predicted numbers lie from the true ones."""

    histogram: Histogram
    """Of predicted less true."""
    scale: tuple[float, ...]
    """Edges of the cells, true and predicted alike."""
    cells: tuple[tuple[int, ...], ...]
    """Rows in each cell: true value downward, predicted across."""


class WorstRow(Record):
    """A test row that the model answered badly."""

    row: int
    """Index in the test split."""
    row_id: str
    true: Value
    predicted: Value
    confidence: float | None = None
    """Probability of the answered class; None for a number."""
    loss: float
    """Minus the logarithm of the true class's probability, or the distance in the target's unit."""
    values: dict[str, str] = {}
    """Its first columns, as a table shows them."""
    picture: str | None = None
    """A small picture of it, as a data URI."""


class EvaluationDetails(Record):
    """What a person looks at beside the metrics; kept with the run, not with the version."""

    kind: Literal["evaluation_details"] = "evaluation_details"
    calibration: tuple[CalibrationBin, ...] = ()
    """By rising confidence; empty for regression."""
    residuals: Residuals | None = None
    worst: tuple[WorstRow, ...] = ()

    @property
    def calibration_error(self) -> float | None:
        """Mean gap between confidence and accuracy, each bin weighted by its rows; None for regression."""
        rows = sum(each.num_rows for each in self.calibration)
        gaps = sum(each.num_rows * abs(each.confidence - each.accuracy) for each in self.calibration)
        return gaps / rows if rows else None


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
    grpc: str | None = None
    """HOST:PORT for gRPC; None: it is not served."""
    probe: dict[str, Any] = {}
    """The request sent after deployment and its answer."""
    needs_key: bool = False
    """Whether it asks for an API key."""
    cert_file: str | None = None
    """Where its certificate is, if the URL is https."""


class BatchOutput(Record):
    """Predictions for a set of rows."""

    kind: Literal["batch"] = "batch"
    model: str
    version: int
    output: str
    num_rows: int
    num_shards: int
    shards_key: str
    """Below `output`: JSON lines of the shards in row order; each has key, num_rows, size_bytes and sha256."""


StageRecord = DatasetVersion | TrainResult | TuneResult | EvaluationReport | ModelVersion | Endpoint | BatchOutput


def digest_of(digests: dict[str, str]) -> str:
    """One SHA-256 for a set of files, from file name -> SHA-256."""
    text = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()
