"""How one model is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.model import ImportPath
from raypipe.spec.optim import AdamWSpec, ConstantSchedule, Optimizer, Schedule
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.workers import ElasticWorkers, NumWorkers

Precision = Literal["float32", "bfloat16", "float16"]


def label_text(label: object) -> str:
    """A class as a key of `class_weights`: keys are texts in JSON, where classes may be numbers."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _by_text(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {label_text(label): weight for label, weight in cast("dict[Any, Any]", values).items()}


def _some(weights: dict[str, float]) -> dict[str, float]:
    if not weights:
        raise ValueError("names no class; leave it out, or write 'balanced'")
    return weights


ClassWeights = (
    Literal["balanced"]
    | Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
        BeforeValidator(_by_text),
        AfterValidator(_some),
    ]
)

TargetScaling = Literal["auto", "none", "standardize", "log"]


class EarlyStoppingSpec(Spec):
    """Stop when the watched validation metric has not improved for `patience_epochs`."""

    metric: str = "val_loss"
    """`val_loss`, or `val_` and a metric of the task: val_accuracy, val_mae, ..."""
    patience_epochs: int = Field(default=3, ge=1)
    """Epochs without improvement before the training ends."""
    min_delta: float = Field(default=0.0, ge=0)
    """Smaller changes do not count as better."""


class CheckpointSpec(Spec):
    """How much work a lost worker may cost."""

    every_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between checkpoints; unset: at the end of each epoch."""
    num_to_keep: int = Field(default=2, ge=1)
    """Newest complete checkpoints kept; older ones are deleted. The newest at the end of an epoch always stays: another
    number of workers can go on from there alone."""
    num_best_to_keep: int = Field(default=0, ge=0)
    """Of the ends of epochs so many are kept besides, the best ones by the metric of `early_stopping`, else by the loss
    on val rows (on train rows where there are none)."""
    max_unsaved_s: float = Field(default=1800.0, gt=0)
    """How long a checkpoint is tried to be written while the store does not answer; the training goes on meanwhile, and
    stops after it."""


class RowsSpec(Spec):
    """What a worker holds of its rows; the others it reads from the store as it trains, each row once an epoch."""

    resident_bytes: int | None = Field(default=None, ge=0)
    """Rows are held in memory where they take at most so many bytes a worker, as the model reads them; otherwise they
    are streamed. Unset: 40 % of the memory available to the workers of a node, divided among them. 0 always streams.
    Never changes the result."""
    window_rows: int | None = Field(default=None, ge=1)
    """Rows shuffled together, whether held or streamed; streaming takes the memory of two windows and one shard. Unset:
    as many as make 256 MiB."""


class AugmentSpec(Spec):
    """Training images are changed anew each time they are seen, each by itself; those of val and test, of batches and
    requests never are. Pixels are what the model reads, after all transforms. What is drawn follows from seed, epoch,
    step and worker alone, so that a resumed training repeats it."""

    horizontal_flip_prob: float = Field(default=0.0, ge=0, le=1)
    """Share of the images that are mirrored left to right."""
    crop_padding: int = Field(default=0, ge=0, le=2**12)
    """Pixels of zeros put around an image, from which a piece of its own size is cut at random."""
    contrast_frac: float = Field(default=0.0, ge=0, le=1)
    """Distances from the image's mean are multiplied by a factor between 1 minus this and 1 plus this."""
    brightness: float = Field(default=0.0, ge=0)
    """A number between minus this and plus this is added to all pixels of an image."""
    channels: Literal["first", "last"] = "first"
    """`last` for images [H, W, C]; those of one channel may be [H, W] either way."""


LATER_FIELDS: dict[str, Any] = {
    "max_steps": None,
    "step": None,
    "parallel": "auto",
    "micro_batch_rows": "auto",
    "precision": "float32",
    "ema_decay": None,
    "quantile": None,
    "class_weights": None,
    "balance": None,
    "sync_batch_norm": False,
    "compile": False,
}
"""Fields that came after trainings were kept, with what all of those did: left out of `shaping` where they say so, or
an unchanged file would no longer find its outcome."""


class TrainSpec(Spec):
    """How one model is trained; a tuning trial may override any field."""

    num_workers: NumWorkers = 1
    """Data-parallel processes; each reads its own share of the rows. `{min: 2, max: 8}` is elastic: as many of them as
    there is room for."""
    trainer: Literal["auto", "ray_train"] = "auto"
    """Who starts the workers and restarts lost ones. `auto`: raypipe itself where all of Ray is on this machine (they
    are ready sooner) and where their number is elastic, Ray Train on a cluster. `ray_train`: Ray Train everywhere.
    Never changes the result."""
    resources: ResourceSpec = ResourceSpec()
    """What one worker occupies. `num_gpus: 1` trains on GPUs over NCCL."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the train split."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps after which the training ends, within an epoch if need be; unset: `epochs` decide alone."""
    global_batch_size: int = Field(default=128, ge=1)
    """Rows per optimizer step, summed over workers. The last step of an epoch takes what is left, and up to two rows a
    worker more where otherwise one would be left with a single row or none."""
    optimizer: Optimizer = AdamWSpec(kind="adamw")
    """What turns gradients into steps."""
    schedule: Schedule = ConstantSchedule()
    """How the learning rate changes as training goes on."""
    loss: Literal["auto", "cross_entropy", "mse", "mae", "huber", "quantile"] = "auto"
    """`auto`: cross_entropy for classification, mse for regression. `huber` is quadratic up to one standard deviation
    of the target, linear beyond (up to 1 under `target_transform: none`). `quantile` learns the value that a share
    `quantile` of the targets does not exceed; its metric is the pinball loss, `pinball_0.9`."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """For `loss: quantile` alone: which one, e.g. 0.9."""
    class_weights: ClassWeights | None = None
    """Classification: how often a row of each class counts in the losses (not in the metrics), beside what data.weight
    says. `balanced`: all rows / (classes * rows of the class), of train, so that each class counts alike (rows by their
    data.weight). `{spam: 5}`: so many times; a class that is not named counts once, one of 0 not at all."""
    balance: Literal["oversample"] | None = None
    """Classification: `oversample` visits the train rows of rarer classes several times an epoch, until each class is
    visited as often as the largest; which of them once more than others is drawn anew each epoch. Validation and test
    rows stay as they are. Costs a reading of the train rows when the training starts."""
    target_transform: TargetScaling = "auto"
    """What is done to a regression target before the network learns it, by what the train split holds: `standardize`
    moves its mean to 0 and its standard deviation to 1; `log` does so with its natural logarithm, for targets above 0
    that differ by factors; `auto` standardizes. Losses (of `log`: those of the logarithm), metrics and predictions are
    told in the target's own unit."""
    step: ImportPath | None = None
    """Your own function from rows to a loss, `steps.py:step` (as `model.path`): it is given the network, features,
    target and the loss of `train.loss`, and returns the mean loss over the rows, or one a row; gradients, clipping and
    the optimizer are not its own. What it must keep to is raypipe.train.own_step.TrainingStep."""
    label_smoothing_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability spread over all classes; classification only."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Largest L2 norm of the whole gradient; unset does not clip."""
    parallel: Literal["auto", "ddp", "sharded"] = "auto"
    """How several workers hold the model. `ddp`: each a copy. `sharded` (FSDP2): each a part of every tensor and of the
    optimizer's state, borrowing the others' parts layer by layer, for models that fit no single device. `auto`: `ddp`
    where a whole copy takes at most 80 % of the memory that is free for a worker, else `sharded`, which is told; a
    training that goes on keeps to it. Sums are made in another order, so the last bits of a result may differ."""
    micro_batch_rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rows that a worker runs through the model at a time; a step adds up as many passes as its rows need, so that a
    large `global_batch_size` fits a small memory. Changes no result but its last bits, unless the model normalizes over
    a batch. A pass may have two rows more, where a single one would be left. `auto`: on a GPU as many as fit, found
    before the first step; on CPUs, and of a `sharded` model, all of a worker's."""
    precision: Precision = "float32"
    """Numbers that layers compute in; parameters, their sums and the optimizer stay in float32. `bfloat16` is for GPUs
    that have it; `float16` also scales the loss, and leaves out steps whose gradient overflows. CPUs are slow."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep an exponential moving average of the weights, e.g. 0.999: each step's share is 1 minus this, more in the
    first steps. The averages are what is validated, compared and packaged."""
    sync_batch_norm: bool = False
    """Batch normalization over the rows of all workers instead of each one's own: for shares of a few rows each."""
    recompute: bool = False
    """Run each layer of the network's lists and sequences again in the backward pass, instead of keeping what is inside
    it: about a third more time for a fraction of the memory. Never changes the result."""
    compile: bool = False
    """Compile the network with torch.compile, which takes up to minutes at the start: repeated layers each by itself,
    others whole. Changes the last bits of a result."""
    early_stopping: EarlyStoppingSpec | None = None
    """Present: training may end before its last epoch, and its best epoch is kept."""
    augment: AugmentSpec | None = None
    """For images alone."""
    rows: RowsSpec = RowsSpec()
    """What is held in memory, and what is shuffled together."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """How often the state is kept, to go on from."""
    max_failures: int = Field(default=3, ge=0)
    """Times a lost worker group is started again from the newest checkpoint."""
    hung_after_s: float = Field(default=900.0, gt=0)
    """A worker that tells of no step, epoch or validation for so long is ended, its stack is told,
    and the group starts again. Longer than any part of the training that tells nothing, e.g. the first compilation."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for all workers to be placed, where a cluster may still grow."""

    def shaping(self) -> dict[str, Any]:
        """The fields that the trained weights depend on, JSON-able: what a plan and a checkpoint compare.

        Left out is what changes how long training takes, where it runs or what it survives. Of the resources only
        counts whether workers have GPUs, which round and draw otherwise than CPUs.
        """
        fields = self.model_dump(
            mode="json",
            exclude={
                "trainer": True,
                "max_failures": True,
                "hung_after_s": True,
                "start_timeout_s": True,
                "checkpoint": True,
                "resources": True,
                "recompute": True,
                "rows": {"resident_bytes"},
            },
        )
        for name, default in LATER_FIELDS.items():
            if fields[name] == default:
                del fields[name]
        if self.elastic is not None:
            fields["num_workers"] = {"max": self.elastic.max}
        return {**fields, "resources": {"num_gpus": self.resources.num_gpus > 0}}

    @model_validator(mode="after")
    def quantile_is_for_its_loss(self) -> Self:
        if (self.loss == "quantile") != (self.quantile is not None):
            missing = "loss: quantile needs `quantile`, e.g. quantile: 0.9"
            raise ValueError(missing if self.quantile is None else "quantile needs loss: quantile")
        return self

    @property
    def elastic(self) -> ElasticWorkers | None:
        """Between which numbers of workers the training moves; None: their number is fixed."""
        return self.num_workers if isinstance(self.num_workers, ElasticWorkers) else None

    @property
    def min_workers(self) -> int:
        """Workers that must be there at once."""
        return self.num_workers.min if isinstance(self.num_workers, ElasticWorkers) else self.num_workers

    @property
    def max_workers(self) -> int:
        """Workers that there are at most."""
        return self.num_workers.max if isinstance(self.num_workers, ElasticWorkers) else self.num_workers

    def num_shares(self, world_size: int) -> int:
        """Shares that the rows of an epoch are cut into: one a worker; where their number is elastic as many as there
        are workers at most, so that every number of workers takes the same rows in the same step."""
        return world_size if self.elastic is None else self.elastic.max

    @model_validator(mode="after")
    def classes_are_balanced_once(self) -> Self:
        if self.balance is not None and self.class_weights == "balanced":
            raise ValueError(
                "balance: oversample and class_weights: balanced both make classes count alike, together rare ones "
                "would count more than others; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def number_of_workers_can_be(self) -> Self:
        if self.elastic is not None and self.elastic.min > self.elastic.max:
            raise ValueError(f"num_workers: min={self.elastic.min} is more than max={self.elastic.max}; it must not be")
        if self.elastic is not None and self.trainer == "ray_train":
            raise ValueError(
                "trainer: ray_train keeps a fixed number of workers; leave trainer out where num_workers is elastic"
            )
        return self

    @model_validator(mode="after")
    def batch_splits_evenly(self) -> Self:
        share, left = divmod(self.global_batch_size, self.max_workers)
        if left:
            name = "num_workers" if self.elastic is None else "num_workers.max"
            raise ValueError(
                f"global_batch_size={self.global_batch_size} does not split over {name}={self.max_workers}; "
                f"use {(share + 1) * self.max_workers}"
            )
        return self
