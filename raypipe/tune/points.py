"""A trial as a search sees it: the point it trains at, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raypipe.spec.base import fingerprint


@dataclass(frozen=True)
class Point:
    """What one trial trains with; plain values, kept as JSON before the trial begins.

    Attributes:
        label: what progress calls it: `trial 3/40`.
        values: field path to value.
        draw: how often the search had drawn when it came to this point, from 1.
        drawn: what it drew, by field path; of a `choice` the option's index.
        continues: the trial from whose last checkpoint this one continues.
        until_epoch: the last epoch it trains; None for `train.epochs`.
    """

    trial_id: str
    label: str
    values: dict[str, Any]
    draw: int = 0
    drawn: dict[str, Any] = field(default_factory=dict)
    continues: str | None = None
    until_epoch: int | None = None

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class End:
    """How a trial ended.

    Attributes:
        status: as records.Trial has it.
        metric: what the search compares; of a trial that was stopped, its last epoch's.
        reports: the metric of each epoch that was told.
        reason: why it did not finish.
        lasting: whether it would end the same way again; otherwise a search that goes on tries it again.
    """

    status: Literal["completed", "stopped", "diverged", "failed"]
    metric: float | None = None
    reports: dict[int, float] = field(default_factory=dict)
    reason: str | None = None
    lasting: bool = True

    @property
    def epochs(self) -> int:
        """The last epoch that was told."""
        return max(self.reports, default=0)

    def document(self) -> dict[str, Any]:
        """As JSON holds it; its keys are texts."""
        return {**asdict(self), "reports": {str(epoch): value for epoch, value in self.reports.items()}}

    @classmethod
    def parse(cls, document: dict[str, Any]) -> End:
        """What `document` gave. Raises TypeError or ValueError for anything else."""
        reports = {int(epoch): float(value) for epoch, value in dict(document.pop("reports")).items()}
        return cls(**document, reports=reports)


def same_point(values: dict[str, Any]) -> str:
    """Equal for equal values, in whichever order."""
    return fingerprint(values)
