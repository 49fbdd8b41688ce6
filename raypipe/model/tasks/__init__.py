"""The tasks a model can have.  A new one is a file here, its name in spec/data.py and in spec/metrics.py, and its class
in TASKS."""

from __future__ import annotations

from raypipe.model.tasks.base import OutputColumn, Task, json_able
from raypipe.model.tasks.classification import Classification
from raypipe.model.tasks.language_model import LanguageModel
from raypipe.model.tasks.multi_label import MultiLabel
from raypipe.model.tasks.regression import Regression
from raypipe.model.tasks.sequence_to_sequence import SequenceToSequence
from raypipe.records import Signature

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Classification, MultiLabel, Regression, LanguageModel, SequenceToSequence)
}

__all__ = ["TASKS", "OutputColumn", "Task", "json_able", "task_of"]


def task_of(signature: Signature) -> Task:
    """The task of a model, or of a dataset that models learn."""
    return TASKS[signature.task](signature)
