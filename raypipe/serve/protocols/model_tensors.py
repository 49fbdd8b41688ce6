"""What a model reads and answers, as tensors of the Open Inference Protocol: their names, shapes and datatypes.

One tensor a column of the signature, [rows, *shape], or flat [rows, values]; a scalar's is [rows] or [rows, 1].
Answers of a classifier: `probabilities` FP32 [rows, classes] in the order of the classes, `label` [rows] (BYTES for
texts, INT64, FP64 or BOOL as the classes are), `probability` FP32 [rows] of that label. Where rows have several labels:
`probabilities`, and `labels` BOOL [rows, classes], whether each is given. Of a regression: one tensor [rows] with each
target's name, FP32, or FP64 where the training changed the target's unit. Of texts: `text` BYTES [rows] and
`probability` FP32 [rows].
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits
from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import OutputColumn, task_of
from raypipe.model.tasks.base import Values
from raypipe.records import Column, Value
from raypipe.serve.checker import Columns
from raypipe.serve.protocols.base import Served
from raypipe.serve.protocols.tensors import MAX_DIM, OF_DTYPE, TEXT
from raypipe.serve.schema import first_repeated, several, shown

ROWS = -1
"""In the shape of a tensor's metadata: as many as the request has."""

MAX_NAMES = 5
"""Named in a message."""

PLATFORM = "raypipe_pytorch"

try:
    VERSION = metadata.version("raypipe")
except metadata.PackageNotFoundError:  # run from its source
    VERSION = "unknown"
"""Of the server; not from the package itself, whose face imports every room."""

NO_ROWS = "the first number of 'shape' is how many rows there are"


class ModelTensors:
    """The tensors of one model."""

    def __init__(self, served: Served) -> None:
        self._checker = served.checker
        self._signature = served.signature
        self._columns = {column.name: column for column in served.signature.inputs}
        self._task = task_of(served.signature)
        (answer, *_) = self._task.columns_of("answer")
        self._labels = label_array(answer.labels)
        self._answer_datatype = OF_DTYPE[served.answer_dtype]
        self.input_names = list(self._columns)
        self._scalars = [column.name for column in served.signature.inputs if not column.shape]
        self.output_names = [tensor["name"] for tensor in self.outputs()]

    def inputs(self) -> list[dict[str, Any]]:
        """Name, datatype and shape of each input, for metadata."""
        return [
            {"name": column.name, "datatype": datatype_of_column(column), "shape": [ROWS, *column.shape]}
            for column in self._columns.values()
        ]

    def outputs(self) -> list[dict[str, Any]]:
        """The same of each output, in the order they are answered in where a request names none."""
        columns = sorted(self._task.columns, key=lambda column: column.role != "detail")  # what says most comes first
        return [
            {"name": column.name, "datatype": self._datatype(column), "shape": [ROWS, *self._shape(column)]}
            for column in columns
        ]

    def _shape(self, column: OutputColumn) -> tuple[int, ...]:
        return (len(column.labels),) if column.is_set else column.shape

    def _datatype(self, column: OutputColumn) -> str:
        if column.is_set:
            return OF_DTYPE["bool"]
        if column.labels:
            return TEXT if self._labels.dtype == object else OF_DTYPE[self._labels.dtype.name]
        if column.dtype == "string":
            return TEXT
        return self._answer_datatype if column.role == "answer" else OF_DTYPE[column.dtype]

    def check_inputs(self, names: Sequence[str]) -> None:
        """Refuse a request by the names of its tensors, before their data are looked at.

        Raises:
            RequestError: 400.
        """
        twice = first_repeated(names)
        if twice is not None:
            raise RequestError(f"input {shown(twice)} is there more than once", "send each input once")
        extra = [name for name in names if name not in self._columns]
        if extra and self._signature.extra_columns == "error":
            raise RequestError(f"unknown input {shown(extra[0])}", _meant(extra[0], self.input_names, "inputs"))
        given = set(names)
        for name, column in self._columns.items():
            if name not in given:
                close = difflib.get_close_matches(name, [each[:80] for each in extra[:MAX_NAMES]], n=1)
                raise RequestError(
                    f"input {shown(name)} is missing; expected {described(column)}",
                    f"is {shown(close[0])} meant? name it {shown(name)}" if close else _listed(self.input_names),
                )

    def columns(self, tensors: Mapping[str, NDArray[Any]]) -> tuple[Columns, int]:
        """Tensors of a request -> columns of the model and the number of rows.

        Raises:
            RequestError: they do not fit the signature: 400, or 413 for too many rows.
        """
        if not self._columns.keys() <= tensors.keys():
            self.check_inputs(list(tensors))
        given = {name: tensors[name] for name in self._columns}
        lengths = {len(values) for values in given.values()}
        if len(lengths) > 1:
            raise RequestError(f"the inputs hold {several(sorted(lengths))} rows; all must hold as many", NO_ROWS)
        (num_rows,) = lengths
        if not num_rows:
            raise RequestError("the inputs hold no row; they must hold at least one", NO_ROWS)
        for name in self._scalars:
            if given[name].shape[1:] == (1,):
                given[name] = given[name].reshape(num_rows)
        return self._checker.arrays(given), num_rows

    def check_outputs(self, names: Sequence[Any]) -> list[str]:
        """The outputs a request names, in its order; all where it names none.

        Raises:
            RequestError: 400, the model has no such output, or it is named twice.
        """
        for place, name in enumerate(names):
            if not isinstance(name, str) or name not in self.output_names:
                raise RequestError(
                    f"unknown output {shown(name)}", _meant(shown(name), self.output_names, "outputs of this model")
                )
            if name in names[:place]:
                raise RequestError(f"output {shown(name)} is asked for more than once", "name each output once")
        return list(names) or self.output_names

    def answers(self, predictions: Predictions, names: Sequence[str]) -> list[tuple[str, NDArray[Any]]]:
        """The named outputs; texts as objects, numbers in the datatype that the metadata tell."""
        values, columns = predictions.values, {column.name: column for column in self._task.columns}
        return [(name, self._answer(columns[name], values)) for name in names]

    def _answer(self, column: OutputColumn, values: Values) -> NDArray[Any]:
        if column.is_set:
            return self._task.encoded(values)
        if column.labels:
            return self._labels[self._task.encoded(values)]
        answer = self._task.answer(column, values)
        return label_array(answer) if column.dtype == "string" else np.ascontiguousarray(answer)


def datatype_of_column(column: Column) -> str:
    """What to send for a column so that each of its values, and NaN for a missing one, fits; others are taken too."""
    return TEXT if column.dtype == "string" else OF_DTYPE[fits.held_as(column)]


def label_array(labels: Sequence[Value]) -> NDArray[Any]:
    """The labels [K]: numbers or booleans where all are of one kind, else texts."""
    kinds = set(map(type, labels))
    dtypes: dict[type, Any] = {bool: bool, int: np.int64, float: np.float64}
    if len(kinds) == 1 and (kind := kinds.pop()) in dtypes:
        fit = kind is not int or all(-MAX_DIM <= int(label) <= MAX_DIM for label in labels)
        if fit:
            return np.array(labels, dtypes[kind])
    found = np.empty(len(labels), object)
    found[:] = [label if isinstance(label, str) else str(label) for label in labels]
    return found


def described(column: Column) -> str:
    """`UINT8 [rows, 28, 28]`, for messages."""
    sizes = ", ".join(["rows", *map(str, column.shape)])
    return f"{datatype_of_column(column)} [{sizes}]"


def check_parameters(parameters: Mapping[str, Any], where: str) -> None:
    """Refuse parameters that would change what is answered, and that this endpoint does not have.

    Raises:
        RequestError: 400.
    """
    for name, what in UNKNOWN.items():
        if parameters.get(name):
            raise RequestError(f"{where}: {name} is not answered here", what)


UNKNOWN = {
    "shared_memory_region": "send the data in the request: there is no shared memory",
    "classification": "ask for the outputs 'label' and 'probabilities'",
    "sequence_id": "send each row by itself: the model keeps no state between requests",
}
"""Parameters of Triton's extensions -> what to do instead."""


def _meant(name: str, known: Sequence[str], what: str) -> str:
    close = difflib.get_close_matches(name[:80], known, n=1)
    return f"did you mean {shown(close[0])}?" if close else f"the {what} are {_listed(known)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
