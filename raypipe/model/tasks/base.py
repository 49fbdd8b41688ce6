"""What a task is: what a network must answer, what its answers mean, and how they are written and judged.

Nothing here imports torch: processes that only hand answers on do without it.  Shape letters: B rows, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import TrainingError
from raypipe.model.measures import Measures
from raypipe.records import Signature, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raypipe.model.text_writer import TextWriter

Values = NDArray[Any]
"""What a model tells of B rows, as Predictor gives it: [B], or [B, num_outputs]."""

Features = Callable[[Mapping[str, Any]], NDArray[np.float32]]

Role = Literal["answer", "confidence", "detail"]


@dataclass(frozen=True)
class OutputColumn:
    """One thing that is told about each row; who writes answers (JSON, CSV, tensors, files, OpenAPI) goes by it.

    Attributes:
        role: `answer` is what was asked for, `confidence` how sure the model is of it, `detail` all there is to know.
        dtype: as in Column.
        shape: of one row's value.
        labels: what the value is one of; empty: it may be anything of its dtype.
        is_probability: it lies between 0 and 1.
        is_set: the value is any number of `labels`, each at most once, in their order.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...] = ()
    labels: tuple[Value, ...] = ()
    is_probability: bool = False
    is_set: bool = False


class Task(ABC):
    """One kind of question that a model answers.

    Attributes:
        name: as `data.task` names it.
        num_outputs: numbers that a network gives a row, or a place of one.
        output_shape: of what a network gives a row.
        target_shape: of what the loss compares it with.
        has_residuals: how far off its numbers lie is worth a picture.
        wanted: what these are, in words: `3 classes`.
        columns: what is told about a row, in the order of a JSON answer. Where it is one, it is written bare.
        target_dtype: of the targets that the loss reads.
        is_one_call: one call of the network answers rows, so that an engine can prepare it.
    """

    name: ClassVar[str]
    target_dtype: ClassVar[Literal["int64", "float32"]]
    has_residuals: bool = False
    is_one_call: ClassVar[bool] = True
    num_outputs: int
    target_shape: tuple[int, ...] = ()
    wanted: str
    columns: tuple[OutputColumn, ...]

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    @property
    def num_places(self) -> int:
        """Answers that a network gives a row: a call of so many times fewer rows takes as much memory."""
        return 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.num_outputs,)

    @property
    def answers_texts(self) -> bool:
        """Whether an answer is any text, not one of some labels."""
        return any(column.dtype == "string" and not column.labels for column in self.columns_of("answer"))

    @staticmethod
    @abstractmethod
    def problem(signature: Signature) -> str:
        """What is wrong with a signature of this task, naming the field; empty: nothing."""

    @staticmethod
    @abstractmethod
    def read_output(output: Tensor) -> Tensor:
        """What `asked` gives, float32 [B, num_outputs] -> what the model tells (a regression: before its unit)."""

    def read_and_compared(
        self, features: NDArray[np.float32], target: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """What a network reads in training, and what the loss compares its output with.

        Args:
            features: of rows, as the transforms give them.
            target: as `encode_target` gives it.
        """
        return features, target

    def asked(self, network: nn.Module) -> nn.Module:
        """A network as rows are asked of it that come straight from the transforms, targets and all, if any."""
        return network

    def judged(self, network: nn.Module, features: Tensor, target: NDArray[Any], values: Values) -> Values:
        """What the model told of rows, with what the metrics need beyond it: how likely it finds the truth, e.g.

        Args:
            network: the one that was trained, in eval mode.
            features: as the transforms give them, where the network is.
            target: as `encode_target` gives it.
        """
        del network, features, target
        return values

    def writer(self, network: nn.Module, features: Features, device: str) -> TextWriter | None:
        """Writes texts token by token, where the answers are some.

        Args:
            network: the one that was trained, in eval mode.
            features: raw columns -> what the transforms give.
        """
        del network, features, device
        return None

    def learned(self, output: Tensor, target: Tensor) -> Tensor:
        """What `asked` and `read_output` give, where the network was called already and the target is known.

        Args:
            output: of the network, float32.
        """
        del target
        return self.read_output(output)

    def answers(self, values: Values) -> dict[str, Any]:
        """Name of each column -> its values for B rows, arrays in one piece of memory."""
        told = {column.name: self.answer(column, values) for column in self.columns}
        return {n: np.ascontiguousarray(each) if isinstance(each, np.ndarray) else each for n, each in told.items()}

    @abstractmethod
    def answer(self, column: OutputColumn, values: Values) -> Any:
        """What one column holds for B rows, labels as they are in the signature."""

    @abstractmethod
    def json_rows(self, values: Values) -> Any:
        """One answer a row for a JSON writer that takes numpy's numbers."""

    @abstractmethod
    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[Any]:
        """How badly each row was answered, float64 [B]; 0 is best.

        Args:
            target_B: as `encode_target` gives it.
        """

    @abstractmethod
    def encoded(self, values: Values) -> NDArray[Any]:
        """The answers [B] as `encode_target` would give them if they were true."""

    @abstractmethod
    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[Any]:
        """Rows [B] that were not answered as they should; all of them where hardly any answer is exactly right."""

    @abstractmethod
    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        """Encoded targets or answers as people know them."""

    def confidence(self, values: Values) -> NDArray[Any] | None:
        """How sure the model is of each answer [B], from 0 to 1; None where the task does not tell."""
        del values
        return None

    def measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None = None) -> Measures:
        """What these rows contribute to the metrics. Rows whose values are not all finite numbers are only counted.

        Args:
            target_B: encoded, in the target's own unit.
            times_B: how often each row counts, as measures.times_of gives it; None: once.
        Raises:
            ValueError: the row counts differ.
        """
        if len(target_B) != len(values):
            raise ValueError(f"{len(target_B)} targets but {len(values)} predictions; the row counts must be equal")
        if not len(values):
            return Measures()
        finite_B = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        counts = {
            "rows": np.array(len(values)),
            "not_finite": np.array(int((~finite_B).sum())),
            "weight": np.array(len(values) if times_B is None else int(times_B.sum())),
            "is_weighted": np.array(int(times_B is not None)),
        }
        if not finite_B.all():
            target_B, values = target_B[finite_B], values[finite_B]
            times_B = None if times_B is None else times_B[finite_B]
        return Measures(counts) + (self._measure(target_B, values, times_B) if len(values) else Measures())

    def metrics(self, measures: Measures, quantile: float | None = None) -> dict[str, float]:
        """Metrics of all rows together, those that these rows define: a ranking needs rows of two classes.

        Args:
            measures: of this task's rows, put together.
            quantile: that a regression was trained to tell.
        Returns:
            Names as in spec/metrics.py.
        Raises:
            ValueError: there are no rows.
            TrainingError: a value was not a finite number.
        """
        if not measures.counts or not measures.counts["weight"]:
            raise ValueError("no rows to measure")
        if num_not_finite := int(measures.counts["not_finite"]):
            raise TrainingError(
                f"the model answers NaN or infinity for {num_not_finite} of {int(measures.counts['rows'])} rows, so "
                "no metric can be told",
                "lower train.optimizer.lr, set train.clip_grad_norm, or check the model's forward",
            )
        return self._metrics(measures, quantile)

    def each_class(self, measures: Measures) -> dict[str, dict[str, float]] | None:
        """Precision, recall, F1 and support of each class; None where the task has none.

        Args:
            measures: of this task's rows, put together; rows that count differently support a class by their weight,
                1 on average.
        """
        del measures
        return None

    @abstractmethod
    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        """Of one or more rows of finite values.

        Args:
            times_B: how often each row counts; None: once.
        """

    @abstractmethod
    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        """Of one or more rows of finite values."""

    def columns_of(self, role: Role) -> list[OutputColumn]:
        """Columns with one role, in order."""
        return [column for column in self.columns if column.role == role]


def json_able(rows: Any) -> Any:
    """`Task.json_rows` without numpy's numbers."""
    if hasattr(rows, "tolist"):
        return rows.tolist()
    if isinstance(rows, dict):
        return {name: json_able(value) for name, value in rows.items()}
    return [json_able(row) for row in rows] if isinstance(rows, Sequence) and not isinstance(rows, str) else rows
