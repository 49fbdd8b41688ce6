"""Optimizers and learning-rate schedules: what turns gradients into steps, and how long those are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec


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


class ScheduleSpec(Spec):
    """What all schedules share."""

    spans_training: ClassVar[bool] = False
    """Whether the rate at a step depends on how many there will be: such a training cannot be made longer."""


class WarmedSchedule(ScheduleSpec):
    """What schedules share that may begin with a warm-up."""

    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps, before all else, in which the rate grows from near 0 to `lr`."""


class ConstantSchedule(WarmedSchedule):
    """The optimizer's learning rate throughout, after warm-up."""

    kind: Literal["constant"] = "constant"


class CosineSchedule(WarmedSchedule):
    """Half a cosine from the full rate down to `final_frac` of it at the last step."""

    spans_training = True
    kind: Literal["cosine"]
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """Share of the full rate that is left at the end."""


class StepSchedule(WarmedSchedule):
    """Multiply the rate by `gamma` every `every_epochs` epochs."""

    kind: Literal["step"]
    every_epochs: int = Field(ge=1)
    """Epochs between two cuts of the rate."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """What the rate is multiplied by at each cut."""


class LinearSchedule(WarmedSchedule):
    """A straight line from the full rate down to `final_frac` of it at the last step."""

    spans_training = True
    kind: Literal["linear"]
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """Share of the full rate that is left at the end."""


class OneCycleSchedule(ScheduleSpec):
    """Half a cosine up to `lr`, another down to almost nothing at the last step (Smith and Topin 2018)."""

    spans_training = True
    kind: Literal["one_cycle"]
    warmup_frac: float = Field(default=0.3, gt=0, lt=1)
    """Share of all steps in which the rate grows."""
    start_frac: float = Field(default=0.04, ge=0, le=1)
    """Share of the full rate at the first step."""
    final_frac: float = Field(default=4e-6, ge=0, le=1)
    """Share of the full rate at the last step."""


class CosineRestartsSchedule(WarmedSchedule):
    """Cosine after cosine, each beginning at the full rate again (Loshchilov and Hutter 2017)."""

    kind: Literal["cosine_restarts"]
    first_epochs: int = Field(ge=1)
    """Epochs of the first cosine."""
    growth: int = Field(default=1, ge=1)
    """Each cosine takes so many times the epochs of the one before."""
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """Share of the full rate at the end of each cosine."""


class PlateauSchedule(WarmedSchedule):
    """Multiply the rate by `gamma` whenever a metric has not improved for `patience_epochs`."""

    kind: Literal["plateau"]
    metric: str = "val_loss"
    """`val_loss`, or `val_` and a metric of the task: val_accuracy, val_mae, ..."""
    patience_epochs: int = Field(default=5, ge=1)
    """Epochs without improvement before the rate is cut; they are counted anew after each cut."""
    min_delta: float = Field(default=0.0, ge=0)
    """Smaller changes do not count as better."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    """What the rate is multiplied by at each cut."""
    final_frac: float = Field(default=0.0, ge=0, le=1)
    """Share of the full rate below which it is not cut."""


Schedule = Annotated[
    ConstantSchedule
    | CosineSchedule
    | StepSchedule
    | LinearSchedule
    | OneCycleSchedule
    | CosineRestartsSchedule
    | PlateauSchedule,
    Field(discriminator="kind"),
]
