"""Which fields to search, how, and what counts as better."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec


class UniformRange(Spec):
    """A float, evenly between two bounds."""

    uniform: tuple[float, float]
    """Lower and upper bound."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        _check_order(self.uniform)
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """Both ends."""
        return self.uniform


class LogUniformRange(Spec):
    """A float, evenly in its logarithm: learning rates, weight decay."""

    log_uniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    """Lower and upper bound, both above 0."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        _check_order(self.log_uniform)
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """Both ends."""
        return self.log_uniform


class IntRange(Spec):
    """A whole number, both bounds included."""

    int_uniform: tuple[int, int]
    """Least and greatest value."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        _check_order(self.int_uniform)
        return self

    @property
    def bounds(self) -> tuple[int, ...]:
        """Both ends."""
        return self.int_uniform


class Choice(Spec):
    """One of the listed values."""

    choice: list[Any] = Field(min_length=1)
    """The values; a whole section (an optimizer, a model) is a value too."""

    @property
    def bounds(self) -> tuple[Any, ...]:
        """All that may be drawn."""
        return tuple(self.choice)


def _check_order(bounds: tuple[float, float]) -> None:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"lower bound {bounds[0]} must be under upper bound {bounds[1]}")


def _kind_of_range(value: Any) -> str | None:
    written: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    keys: list[str] = list(written)
    return keys[0] if len(keys) == 1 else None


Range = Annotated[
    Annotated[UniformRange, Tag("uniform")]
    | Annotated[LogUniformRange, Tag("log_uniform")]
    | Annotated[IntRange, Tag("int_uniform")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _kind_of_range,
        custom_error_type="range_kind",
        custom_error_message="must be one of {uniform: [a, b]}, {log_uniform: [a, b]}, {int_uniform: [a, b]}, "
        "{choice: [..]}",
    ),
]


class RandomSearch(Spec):
    """Independent draws."""

    kind: Literal["random"] = "random"


class OptunaSearch(Spec):
    """Optuna's tree-structured Parzen estimator: later trials learn from earlier ones."""

    kind: Literal["optuna"]


Search = Annotated[RandomSearch | OptunaSearch, Field(discriminator="kind")]


class AshaScheduler(Spec):
    """Asynchronous successive halving (Li et al. 2020): trials that fall behind stop early."""

    kind: Literal["asha"]
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs every trial may run."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in so many goes on at each rung."""


class NoScheduler(Spec):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


Scheduler = Annotated[NoScheduler | AshaScheduler, Field(discriminator="kind")]


MAX_SPACE_VALUES = 1000
"""Bounds and choices of a whole space; each is tried on the file before anything starts."""


def _check_count(space: dict[str, Any]) -> dict[str, Any]:
    count = sum(len(values.bounds) for values in space.values())
    if count > MAX_SPACE_VALUES:
        raise ValueError(f"lists {count:,} values; at most {MAX_SPACE_VALUES:,}, use ranges: {{int_uniform: [a, b]}}")
    return space


class TuneSpec(Spec):
    """A search over fields of the file; the best trial becomes the model."""

    space: Annotated[dict[str, Range], AfterValidator(_check_count)] = Field(min_length=1)
    """Field path to range: `train.optimizer.lr: {log_uniform: [0.0001, 0.1]}`."""
    num_trials: int = Field(default=10, ge=1, le=100_000)
    """Points of the space that are tried."""
    search: Search = RandomSearch()
    """How the points are chosen."""
    scheduler: Scheduler = NoScheduler()
    """Which trials stop early."""
    metric: str = "val_loss"
    """What the trials are compared by: `val_loss`, or `val_` and a metric of the task."""
    mode: Literal["auto", "min", "max"] = "auto"
    """`auto`: max for accuracy, precision, recall, f1 and r2, else min."""
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at one time; unset: as many as fit the cluster."""
