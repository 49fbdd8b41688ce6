"""What all transforms have in common."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TypeVar

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec

_Spec = TypeVar("_Spec", bound="TransformSpec")


class TransformSpec(Spec):
    columns: list[str] = Field(min_length=1)
    """Feature columns it changes, each by itself."""

    @model_validator(mode="after")
    def columns_once(self) -> Self:
        twice = sorted(name for name, num in Counter(self.columns).items() if num > 1)
        if twice:
            raise ValueError(f"columns names {twice} twice; name each column once")
        return self


def rises(spec: _Spec, name: str, values: list[float] | tuple[float, ...]) -> _Spec:
    """The spec, whose field `name` holds these values. Raises ValueError unless each is larger than that before it."""
    if any(low >= high for low, high in pairwise(values)):
        raise ValueError(f"{name}: found {list(values)}; each value must be larger than the one before it")
    return spec
