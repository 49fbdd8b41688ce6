"""What a pipeline file says that has no effect, or not the one it names: warned of, never refused."""

from __future__ import annotations

from collections.abc import Iterator

from raypipe.spec.optim import OneCycleSchedule, PlateauSchedule, StepSchedule
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.tune import NoScheduler


def advice(spec: PipelineSpec, train_rows: int | None = None) -> list[str]:
    """One line for each setting that reaches beyond the training.

    Args:
        train_rows: rows of the train split; None where the data was not prepared yet, so that steps are not known.
    """
    searched = spec.tune.space if spec.tune is not None else {}
    return [text for field, text in _beyond(spec, train_rows) if not any(_touches(path, field) for path in searched)]


def _touches(path: str, field: str) -> bool:
    """Whether a search over `path` sets the field, or something inside it."""
    return f"{field}.".startswith(f"{path}.") or path.startswith(f"{field}.")


def _beyond(spec: PipelineSpec, train_rows: int | None) -> Iterator[tuple[str, str]]:
    """Field and warning."""
    train, epochs = spec.train, spec.largest_train.epochs
    schedule, stopping, tune = train.schedule, train.early_stopping, spec.tune
    warmup_steps = 0 if isinstance(schedule, OneCycleSchedule) else schedule.warmup_steps
    if train_rows is not None and warmup_steps:
        steps = epochs * -(-train_rows // train.global_batch_size)
        if warmup_steps >= steps:
            yield (
                "train.schedule",
                f"train.schedule.warmup_steps={warmup_steps} is beyond the training's {steps} steps ({epochs} "
                f"epochs of {train_rows} rows): the learning rate never reaches lr",
            )
    if isinstance(schedule, StepSchedule) and schedule.every_epochs >= epochs:
        yield (
            "train.schedule",
            f"train.schedule.every_epochs={schedule.every_epochs} is not below train.epochs={epochs}: "
            "the learning rate is never cut",
        )
    if isinstance(schedule, PlateauSchedule) and schedule.patience_epochs >= epochs:
        yield (
            "train.schedule",
            f"train.schedule.patience_epochs={schedule.patience_epochs} is not below train.epochs={epochs}: "
            "the learning rate is never cut",
        )
    if stopping is not None and stopping.patience_epochs >= epochs:
        yield (
            "train.early_stopping",
            f"train.early_stopping.patience_epochs={stopping.patience_epochs} is not below train.epochs={epochs}: "
            "training never stops early",
        )
    if tune is None or isinstance(tune.scheduler, NoScheduler):
        return
    if tune.scheduler.grace_epochs >= epochs:
        yield (
            "tune.scheduler",
            f"tune.scheduler.grace_epochs={tune.scheduler.grace_epochs} is not below train.epochs={epochs}: "
            "no trial is stopped early",
        )
