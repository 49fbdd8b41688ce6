"""What every task must hold: typed columns tell what its answers are.  B rows, K classes."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from raypipe.model.tasks import TASKS, Task, json_able, task_of
from raypipe.records import Column, LabelSets, Signature
from raypipe.spec import data as spec
from raypipe.spec.metrics import METRICS

INPUTS = (Column(name="x", dtype="float64"),)
GIVEN_BK = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], np.float32)

EXAMPLES: dict[str, tuple[Task, Any]] = {
    "classification": (
        task_of(Signature(inputs=INPUTS, task="classification", target="y", classes=("a", "b", "c"))),
        GIVEN_BK,
    ),
    "multi_label": (
        task_of(
            Signature(
                inputs=INPUTS,
                task="multi_label",
                target="y",
                classes=("a", "b", "c"),
                label_sets=LabelSets(separator=";", threshold=0.3),
            )
        ),
        GIVEN_BK,
    ),
    "regression": (task_of(Signature(inputs=INPUTS, task="regression", target="y")), np.array([1.5, -2.0])),
}


OTHERWISE = {"language_model", "sequence_to_sequence"}
"""Who tell tokens: test_language_model.py and test_sequence_to_sequence.py tell their stories."""


def test_every_task_of_the_file_has_an_object_and_metrics():
    assert set(get_args(spec.Task)) == TASKS.keys() == METRICS.keys() == EXAMPLES.keys() | OTHERWISE


@pytest.mark.parametrize("name", EXAMPLES)
def test_columns_of_a_task_tell_what_its_answers_hold(name: str):
    task, values = EXAMPLES[name]
    answers = task.answers(values)
    assert list(answers) == [column.name for column in task.columns]
    assert len(task.columns_of("answer")) == 1
    for column in task.columns:
        if column.is_set:
            assert all(set(labels) <= set(column.labels) for labels in answers[column.name])
            continue
        told = np.asarray(answers[column.name])
        assert told.shape == (len(values), *column.shape)
        if column.labels:
            assert set(told.tolist()) <= set(column.labels)
        else:
            assert told.dtype.kind == "f" and column.dtype.startswith("float")
        if column.is_probability:
            assert told.min() >= 0 and told.max() <= 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_json_row_of_a_task_is_its_only_column_or_an_object_of_all(name: str):
    task, values = EXAMPLES[name]
    answers = {key: json_able(column) for key, column in task.answers(values).items()}
    rows = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
    expected = rows if len(answers) > 1 else [row[next(iter(answers))] for row in rows]
    assert json_able(task.json_rows(values)) == expected


@pytest.mark.parametrize("name", EXAMPLES)
def test_answers_that_are_encoded_as_targets_are_right(name: str):
    task, values = EXAMPLES[name]
    encoded = task.encoded(values)
    (answer,) = task.columns_of("answer")
    told = json_able(task.answers(values)[answer.name])
    assert task.known_as(encoded) == ([", ".join(labels) for labels in told] if answer.is_set else told)
    if name == "classification":
        assert not task.is_wrong(encoded, values).any() and task.is_wrong(encoded + 1, values).all()
    elif answer.is_set:
        assert not task.is_wrong(encoded, values).any() and task.is_wrong(~encoded, values).all()
    else:
        assert not task.row_losses(encoded, values).any()


@pytest.mark.parametrize("name", EXAMPLES)
def test_output_of_a_network_is_read_as_wide_as_the_task_says(name: str):
    task, values = EXAMPLES[name]
    output = torch.randn(2, task.num_outputs, generator=torch.Generator().manual_seed(0))
    assert task.read_output(output).shape == values.shape


@pytest.mark.parametrize(
    ("task", "classes", "words"),
    [
        ("classification", None, "signature.classes: none for task classification"),
        ("classification", (), "one or more, and each once"),
        ("classification", (1, 1), "one or more, and each once"),
        ("regression", (0, 1), "signature.classes: 2 for task regression"),
    ],
)
def test_signature_that_is_none_of_its_task_is_told(task: Any, classes: Any, words: str):
    signature = Signature(inputs=INPUTS, task=task, target="y", classes=classes)
    assert words in TASKS[task].problem(signature)


def test_signature_of_a_task_has_no_problem():
    for task, _ in EXAMPLES.values():
        assert type(task).problem(task.signature) == ""
