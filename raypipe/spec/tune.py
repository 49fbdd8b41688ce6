"""Which fields to search, how, and what counts as better."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.ranges import Choice, Range, is_listed, options_meant


class RandomSearch(Spec):
    """Independent draws."""

    kind: Literal["random"] = "random"


class GridSearch(Spec):
    """Every combination once, in the order of the file, the last field changing fastest. Floats need a `step`, or a
    `choice`."""

    kind: Literal["grid"]


class TpeSearch(Spec):
    """A tree-structured Parzen estimator (Bergstra et al. 2011; Optuna's): later trials are drawn near those that were
    good. Repeats its points exactly where trials run one at a time."""

    kind: Literal["tpe"]
    num_random_trials: int = Field(default=10, ge=1)
    """Trials that are drawn at random before it has something to learn from."""


class CmaEsSearch(Spec):
    """Covariance matrix adaptation (Hansen and Ostermeier 2001; Optuna's): for two or more numbers that act together,
    in hundreds of short trials. Fields with a `choice` are drawn at random beside them."""

    kind: Literal["cma_es"]
    population: int | None = Field(default=None, ge=3)
    """Trials that make one generation; unset: 4 + 3 ln(number of fields)."""


class PbtSearch(Spec):
    """Population based training (Jaderberg et al. 2017): `tune.num_trials` trainings go on side by side; after some
    epochs, the worst continue from the checkpoints of the best, with changed values. What is found is a schedule: the
    values of one training change while it runs.

    Searches what can change in mid training: fields of `train.optimizer` but its kind, `train.global_batch_size`,
    `train.clip_grad_norm`, `train.label_smoothing_frac`, `train.augment`."""

    kind: Literal["pbt"]
    every_epochs: int = Field(default=1, ge=1)
    """Epochs between two comparisons."""
    replaced_frac: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the population that gives up at a comparison, rounded up, and continues from as many of the best."""
    redraw_prob: float = Field(default=0.25, ge=0, le=1)
    """How often a value is drawn anew where a training continues from another; otherwise it is multiplied by 0.8 or
    1.2, or becomes the neighbouring choice."""


Search = Annotated[
    RandomSearch | GridSearch | TpeSearch | CmaEsSearch | PbtSearch,
    Field(discriminator="kind"),
]


class NoScheduler(Spec):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


class AshaScheduler(Spec):
    """Asynchronous successive halving (Li et al. 2020): trials that fall behind stop early."""

    kind: Literal["asha"]
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs every trial may run."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in so many goes on at each rung."""


class MedianScheduler(Spec):
    """A trial stops when its best epoch so far is worse than the median of the others at the same epoch."""

    kind: Literal["median"]
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs every trial may run."""
    num_startup_trials: int = Field(default=5, ge=1)
    """Trials that end before any is stopped."""


class HyperbandScheduler(Spec):
    """Hyperband (Li et al. 2018): successive halving several times over, from strict to lenient, for metrics that tell
    little in early epochs."""

    kind: Literal["hyperband"]
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs every trial may run."""
    reduction_factor: int = Field(default=3, ge=2)
    """One in so many goes on at each rung."""


Scheduler = Annotated[
    NoScheduler | AshaScheduler | MedianScheduler | HyperbandScheduler,
    Field(discriminator="kind"),
]


MAX_SPACE_VALUES = 1000
"""Bounds and choices of a whole space; each is tried on the file before anything starts."""


def _check_count(space: dict[str, Any]) -> dict[str, Any]:
    count = sum(len(values.bounds) for values in space.values())
    if count > MAX_SPACE_VALUES:
        raise ValueError(f"lists {count:,} values; at most {MAX_SPACE_VALUES:,}, use ranges: {{int_uniform: [a, b]}}")
    return space


CHANGES_IN_MID_TRAINING = (
    "train.optimizer.",
    "train.augment.",
    "train.global_batch_size",
    "train.clip_grad_norm",
    "train.label_smoothing_frac",
)
"""Fields that leave every weight of a network where it is."""


class TuneSpec(Spec):
    """A search over fields of the file; the best trial becomes the model. A search that was broken off goes on by the
    same command, and repeats no trial that ended."""

    space: Annotated[dict[str, Range], AfterValidator(_check_count)] = Field(min_length=1)
    """Field path to range: `train.optimizer.lr: {log_uniform: [0.0001, 0.1]}`."""
    num_trials: int = Field(default=10, ge=1, le=100_000)
    """Points of the space that are tried, at the most; no point is tried twice. For `pbt`, trainings side by side."""
    max_minutes: float | None = Field(default=None, gt=0)
    """The search ends after so many minutes, counted over all attempts at it: no trial begins any more, and those that
    run are stopped as soon as one has finished. Unset: it ends with its trials."""
    max_trial_minutes: float | None = Field(default=None, gt=0)
    """A trial that takes longer is ended, and counts as failed. Unset: it may take any time."""
    max_failed_trials: int = Field(default=10, ge=1)
    """The search ends with an error when so many trials failed and none has finished."""
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

    @model_validator(mode="after")
    def conditions_name_options(self) -> Self:
        for path, values in self.space.items():
            for parent, wanted in values.when.items():
                options = self.space.get(parent)
                if not isinstance(options, Choice) or parent == path:
                    raise ValueError(
                        f"space.{path}.when: {parent} must be another field of the space, one with a choice"
                    )
                unknown = [o for o in options_meant(wanted, options.choice) if not is_listed(o, options.choice)]
                if unknown:
                    raise ValueError(
                        f"space.{path}.when: {unknown[0]!r} is no option of {parent}; its options are {options.choice}"
                    )
        self.in_order()
        return self

    def in_order(self) -> list[str]:
        """The searched fields, each behind those it depends on.

        Raises:
            ValueError: some depend on each other.
        """
        left, ordered = dict(self.space), list[str]()
        while left:
            ready = [path for path, values in left.items() if not any(parent in left for parent in values.when)]
            if not ready:
                raise ValueError(f"space: the fields {sorted(left)} exist only where one another does")
            ordered.append(ready[0])
            del left[ready[0]]
        return ordered

    @model_validator(mode="after")
    def space_fits_the_search(self) -> Self:
        if isinstance(self.search, GridSearch):
            unlisted = [path for path, values in self.space.items() if not values.listed]
            if unlisted:
                raise ValueError(
                    f"search.kind: grid lists all values, and {unlisted[0]} has too many; give it {{choice: [..]}}, or "
                    "a step"
                )
        if isinstance(self.search, CmaEsSearch):
            numbers = [path for path, values in self.space.items() if not isinstance(values, Choice)]
            if len(numbers) < 2:
                raise ValueError(
                    f"search.kind: cma_es needs two or more fields that are numbers, found {len(numbers)}; use tpe"
                )
            conditional = [path for path in numbers if self.space[path].when]
            if conditional:
                raise ValueError(
                    f"search.kind: cma_es moves all numbers together, and {conditional[0]} does not always exist; "
                    "use tpe"
                )
        if isinstance(self.search, PbtSearch):
            self._check_population()
        return self

    def _check_population(self) -> None:
        for path, values in self.space.items():
            if path == "train.optimizer.kind" or not path.startswith(CHANGES_IN_MID_TRAINING):
                raise ValueError(
                    f"search.kind: pbt changes values in mid training, which {path} cannot; use tpe for it"
                )
            if values.when:
                raise ValueError(f"search.kind: pbt knows no `when`, which {path} has; use tpe")
        if self.num_trials < 2:
            raise ValueError("search.kind: pbt compares trainings; set num_trials to 2 or more")
        if not isinstance(self.scheduler, NoScheduler):
            raise ValueError("search.kind: pbt decides itself which training gives up; leave scheduler out")
