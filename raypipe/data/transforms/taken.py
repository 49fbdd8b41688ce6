"""What a raw column may hold, as far as its fitted transforms tell: for forms, schemas and examples of requests.

Only who applies the transforms knows for sure; this looks at the first one of a column that changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raypipe.data.transforms.base import State
from raypipe.data.transforms.table import KINDS
from raypipe.data.transforms.units import EPOCH, SPELLED
from raypipe.records import Value

DIGITS = "20260131123000"
"""A date spelled out; its beginning is one in each unit of SPELLED."""

SECONDS = 1_769_862_600
"""The same, counted since 1970."""


@dataclass(frozen=True)
class Taken:
    """Values of one column that the transforms take.

    Attributes:
        example: one of them.
        only: all of them; empty: others are taken as well.
    """

    example: Value
    only: tuple[Value, ...] = ()


def taken_values(states: Sequence[State], dtypes: Mapping[str, str]) -> dict[str, Taken]:
    """Of the columns whose transforms tell.

    Args:
        states: as `FittedTransforms.state` gives them.
        dtypes: of the raw columns, by name.
    """
    taken: dict[str, Taken] = {}
    changed: set[str] = set()
    for state in states:
        if KINDS[state["kind"]].joint:
            categories = next(iter(state["columns"].values())).get("categories", ())
            for i, name in enumerate(state["reads"] if categories else ()):
                if name not in changed:
                    taken.setdefault(name, Taken(categories[0][i]))
            continue
        for name, fitted in state["columns"].items():
            if name in changed or KINDS[state["kind"]].fills:
                continue
            changed.add(name)
            if "categories" in fitted:
                refuses = state["unknown"] == "error"
                example = taken[name].example if name in taken else fitted["categories"][0]
                taken[name] = Taken(example, tuple(fitted["categories"]) if refuses else ())
            elif state["kind"] == "bag_of_words":
                taken[name] = Taken(fitted["vocabulary"][0])
            elif state["kind"] == "tokens" and fitted.get("vocabulary"):
                taken[name] = Taken(_known_text(fitted["vocabulary"]))
            elif state["kind"] == "date_parts":
                taken[name] = Taken(_date(state.get("unit") or "seconds", dtypes.get(name) == "string"))
    return taken


def _known_text(vocabulary: Sequence[str]) -> str:
    """A text of tokens that train holds: a letter or word, where there is one."""
    return next(filter(str.isalpha, vocabulary), vocabulary[0])


def _date(unit: str, is_text: bool) -> Value:
    if unit in SPELLED:
        digits = DIGITS[: len(unit)]
        return digits if is_text else int(digits)
    return "2026-01-31T12:30:00Z" if is_text else int(SECONDS * EPOCH[unit])
