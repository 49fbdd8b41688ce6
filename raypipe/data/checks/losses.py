"""What rows that are set aside take from the target: a model is only as good as what is left for it to learn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

NUM_TOLD = 5
"""Classes in a message, those that lose most first."""

UNEVEN_FRAC = 0.01
UNEVEN_DEVIATIONS = 4.0
"""A class is hit unevenly where it loses this much more of its rows than all do together, and chance does not do so:
so many standard deviations of a draw without regard to classes."""


@dataclass
class Targets:
    """The targets of some rows; those of other rows can be added.

    Attributes:
        classes: classification: class -> rows.
        sum, num: regression: of the targets that are there.
        num_unknown: rows of which nothing tells the target, because they could not be read.
    """

    classes: Counter[Any] = field(default_factory=Counter)
    sum: float = 0.0
    num: int = 0
    num_unknown: int = 0

    def add(self, other: Targets) -> None:
        self.classes.update(other.classes)
        self.sum += other.sum
        self.num += other.num
        self.num_unknown += other.num_unknown

    def take_away(self, other: Targets) -> None:
        """Leave out rows that are among these."""
        self.classes.subtract(other.classes)
        self.sum -= other.sum
        self.num -= other.num


@dataclass(frozen=True)
class Losses:
    """Rows that are set aside beside those that stay."""

    target: str
    aside: Targets
    kept: Targets

    def lines(self) -> list[str]:
        """What is lost, for people; empty where nothing is known of it."""
        lines = [self._classes()] if self.aside.classes else [self._means()] if self.aside.num else []
        if self.aside.num_unknown:
            lines.append(f"what '{self.target}' is in {self.aside.num_unknown} of them could not be read")
        return lines

    @property
    def is_uneven(self) -> bool:
        """Whether a class loses clearly more than its share, or rows are lost that nobody knows the target of."""
        num_aside = self.aside.classes.total()
        total = max(1, num_aside + self.kept.classes.total())
        frac = num_aside / total
        for label, count in self.aside.classes.items():
            num_rows = count + self.kept.classes[label]
            beyond = count - frac * num_rows
            chance = sqrt(num_rows * frac * (1 - frac) * (1 - num_rows / total))
            if beyond > UNEVEN_FRAC * num_rows and beyond > UNEVEN_DEVIATIONS * chance:
                return True
        return bool(self.aside.num or self.aside.num_unknown)

    def _classes(self) -> str:
        sizes = {label: count + self.aside.classes[label] for label, count in self.kept.classes.items()}
        sizes |= {label: count for label, count in self.aside.classes.items() if label not in sizes}
        fracs = {label: self.aside.classes[label] / size for label, size in sizes.items() if size}
        order = sorted(fracs, key=lambda label: -fracs[label])
        shown = order if len(order) <= NUM_TOLD else [*order[: NUM_TOLD - 1], order[-1]]
        texts = [f"{label!r} {fracs[label]:.1%} ({self.aside.classes[label]} of {sizes[label]})" for label in shown]
        if len(order) > NUM_TOLD:
            texts.insert(-1, f"... {len(order) - NUM_TOLD} more ...")
        return f"share of the rows of each '{self.target}' that is lost with them: {', '.join(texts)}"

    def _means(self) -> str:
        kept = self.kept.sum / self.kept.num if self.kept.num else float("nan")
        return (
            f"the mean of '{self.target}' is {self.aside.sum / self.aside.num:.6g} in them and {kept:.6g} in the others"
        )
