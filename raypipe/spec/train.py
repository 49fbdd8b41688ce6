"""How one model is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.resources import ResourceSpec


class SgdSpec(Spec):
    """Stochastic gradient descent, with momentum if asked for."""

    kind: Literal["sgd"]
    lr: float = Field(default=0.1, gt=0)
    """Learning rate: the length of a step, before any schedule."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last step that is taken again."""
    nesterov: bool = False
    """Look ahead along the momentum; needs `momentum` above 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Times the weights, added to the gradient."""

    @model_validator(mode="after")
    def nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        return self


class AdamSpec(Spec):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""

    kind: Literal["adam"]
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate: the length of a step, before any schedule."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator, against division by zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Times the weights, added to the gradient."""


class AdamWSpec(AdamSpec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"]  # pyright: ignore[reportIncompatibleVariableOverride]  (frozen: nobody sets it)
    weight_decay: float = Field(default=0.01, ge=0)
    """Times the rate and the weights, taken off the weights at each step."""


Optimizer = Annotated[SgdSpec | AdamSpec | AdamWSpec, Field(discriminator="kind")]


class ConstantSchedule(Spec):
    """The optimizer's learning rate throughout, after warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps over which the rate climbs linearly from 0."""


class CosineSchedule(Spec):
    """Half a cosine from the full rate down to `final_frac` of it at the last step."""

    kind: Literal["cosine"]
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps in which the rate grows from near 0 to `lr`."""
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """Share of the full rate that is left at the end."""


class StepSchedule(Spec):
    """Multiply the rate by `gamma` every `every_epochs` epochs."""

    kind: Literal["step"]
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps in which the rate grows from near 0 to `lr`."""
    every_epochs: int = Field(ge=1)
    """Epochs between two cuts of the rate."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """What the rate is multiplied by at each cut."""


TargetScaling = Literal["auto", "none", "standardize", "log"]

Schedule = Annotated[ConstantSchedule | CosineSchedule | StepSchedule, Field(discriminator="kind")]


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
    """Complete checkpoints kept; older ones are deleted."""


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


class TrainSpec(Spec):
    """How one model is trained; a tuning trial may override any field."""

    num_workers: int = Field(default=1, ge=1, le=4096)
    """Data-parallel processes (DDP); each reads its own share of the rows."""
    trainer: Literal["auto", "ray_train"] = "auto"
    """Who starts the workers and restarts lost ones. `auto`: raypipe itself where all of Ray is on this machine (they
    are ready sooner), Ray Train on a cluster. `ray_train`: Ray Train everywhere. Never changes the result."""
    resources: ResourceSpec = ResourceSpec()
    """What one worker occupies. `num_gpus: 1` trains on GPUs over NCCL."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the train split."""
    global_batch_size: int = Field(default=128, ge=1)
    """Rows per optimizer step, summed over workers. The last step of an epoch takes what is left, and up to two rows a
    worker more where otherwise one would be left with a single row or none."""
    optimizer: Optimizer = AdamWSpec(kind="adamw")
    """What turns gradients into steps."""
    schedule: Schedule = ConstantSchedule()
    """How the learning rate changes as training goes on."""
    loss: Literal["auto", "cross_entropy", "mse", "mae", "huber"] = "auto"
    """`auto`: cross_entropy for classification, mse for regression. `huber` is quadratic up to one standard deviation
    of the target, linear beyond (up to 1 under `target_transform: none`)."""
    target_transform: TargetScaling = "auto"
    """What is done to a regression target before the network learns it, by what the train split holds: `standardize`
    moves its mean to 0 and its standard deviation to 1; `log` does so with its natural logarithm, for targets above 0
    that differ by factors; `auto` standardizes. Losses (of `log`: those of the logarithm), metrics and predictions are
    told in the target's own unit."""
    label_smoothing_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability spread over all classes; classification only."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Largest L2 norm of the whole gradient; unset does not clip."""
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
                "start_timeout_s": True,
                "checkpoint": True,
                "resources": True,
                "rows": {"resident_bytes"},
            },
        )
        return {**fields, "resources": {"num_gpus": self.resources.num_gpus > 0}}

    @model_validator(mode="after")
    def batch_splits_evenly(self) -> Self:
        share, left = divmod(self.global_batch_size, self.num_workers)
        if left:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} does not split over num_workers={self.num_workers}; "
                f"use {(share + 1) * self.num_workers}"
            )
        return self
