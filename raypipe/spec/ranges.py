"""What a search may draw for one field of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec


class _Searched(Spec):
    """What all ranges can say."""

    when: dict[str, Any] = {}
    """Where the field is drawn: the path of another searched field, one with a `choice`, to the option it must have, or
    to a list of such options: `when: {train.optimizer: {kind: sgd}}`. Elsewhere it keeps what the file says."""

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the field exists beside the options that were chosen, by field path."""
        return all(
            path in chosen and is_listed(chosen[path], options_meant(wanted, [chosen[path]]))
            for path, wanted in self.when.items()
        )


class UniformRange(_Searched):
    """A float, evenly between two bounds."""

    uniform: tuple[float, float]
    """Lower and upper bound."""
    step: float | None = Field(default=None, gt=0)
    """Only the lower bound and what lies whole steps above it; unset: any float."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        _check_order(self.uniform, self.step)
        low, high = self.uniform
        if self.step is not None and (high - low) / self.step > MAX_STEPS:
            raise ValueError(f"step {self.step} makes more than {MAX_STEPS:,} values; leave it out")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """The least and the greatest value that may be drawn."""
        low, high = self.uniform
        return (low, high) if self.step is None else (low, self.listed[-1])

    @property
    def listed(self) -> tuple[float, ...]:
        """Every value, where there are steps; otherwise nothing."""
        if self.step is None:
            return ()
        low, high = self.uniform
        last = int((high - low) / self.step + ROUNDING)
        return tuple(min(high, round(low + number * self.step, DECIMALS)) for number in range(last + 1))


class LogUniformRange(_Searched):
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

    @property
    def listed(self) -> tuple[float, ...]:
        """Nothing: between two floats there are too many."""
        return ()


class IntRange(_Searched):
    """A whole number, both bounds included."""

    int_uniform: tuple[int, int]
    """Least and greatest value."""
    step: int = Field(default=1, ge=1)
    """Only the least value and what lies whole steps above it: `{int_uniform: [32, 256], step: 32}`."""
    log: bool = False
    """Evenly in the logarithm: 1 to 10 as often as 10 to 100."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        _check_order(self.int_uniform, self.step)
        if self.log and self.step != 1:
            raise ValueError("log and step exclude each other; list the values: {choice: [16, 32, 64]}")
        if self.log and self.int_uniform[0] < 1:
            raise ValueError(f"log needs a lower bound of 1 or more, found {self.int_uniform[0]}")
        return self

    @property
    def bounds(self) -> tuple[int, ...]:
        """The least and the greatest value that may be drawn."""
        low, high = self.int_uniform
        return low, high - (high - low) % self.step

    @property
    def listed(self) -> Sequence[int]:
        """Every value."""
        return range(self.int_uniform[0], self.int_uniform[1] + 1, self.step)


class Choice(_Searched):
    """One of the listed values."""

    choice: list[Any] = Field(min_length=1)
    """The values; a whole section (an optimizer, a model) is a value too."""

    @property
    def bounds(self) -> tuple[Any, ...]:
        """All that may be drawn."""
        return tuple(self.choice)

    @property
    def listed(self) -> Sequence[Any]:
        """Every value."""
        return self.choice


MAX_STEPS = 10_000
"""Values of a stepped float: more are hardly different from any float."""

ROUNDING = 1e-9
"""Of a step: so far may an upper bound be missed because fractions are not exact in binary."""

DECIMALS = 12
"""Of a stepped float: 0.1 + 2 * 0.1 is 0.3 and not 0.30000000000000004."""


def _check_order(bounds: tuple[float, float], step: float | None = None) -> None:
    low, high = bounds
    if low >= high:
        raise ValueError(f"lower bound {low} must be under upper bound {high}")
    if step is not None and step > high - low:
        raise ValueError(f"step {step} is wider than the range from {low} to {high}")


def options_meant(wanted: Any, options: Sequence[Any]) -> list[Any]:
    """Those a condition names, of which some may not exist: an option can be a list itself."""
    if isinstance(wanted, list) and not is_listed(wanted, options):
        return cast("list[Any]", wanted)
    return [wanted]


def is_listed(value: Any, options: Sequence[Any]) -> bool:
    """Whether it is among the options; Python takes True for 1, a file does not."""
    return any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in options)


KINDS_OF_RANGE = ("uniform", "log_uniform", "int_uniform", "choice")


def _kind_of_range(value: Any) -> str | None:
    written: Any = cast("dict[str, Any]", value) if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    kinds = [kind for kind in KINDS_OF_RANGE if kind in written]
    return kinds[0] if len(kinds) == 1 else None


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
