"""Which of K classes a row is in.  Shape letters: B rows, K classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table.sums import sums
from raypipe.model import ranking
from raypipe.model.measures import TIMES, Measures, counted
from raypipe.model.metrics import (
    CONFIDENCE_UNIT,
    classification_metrics,
    confidence_bins,
    each_class,
    expected_calibration_error,
)
from raypipe.model.tasks.base import OutputColumn, Task, Values
from raypipe.records import Signature, Value
from raypipe.spec.metrics import TOP

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PROBABILITY = 1e-12
"""A class that was given less counts as if it had been given this."""


class Classification(Task):
    """A network gives a logit a class; the model tells the most probable class and the probability of each."""

    name = "classification"
    target_dtype: ClassVar[Literal["int64", "float32"]] = "int64"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.classes: tuple[Value, ...] = signature.classes or ()
        self.num_outputs = len(self.classes)
        self.wanted = f"{self.num_outputs} classes"
        # Of two classes the second is the one that is looked for; of more, each against all others.
        self._ranked_classes = np.arange(self.num_outputs)[1 if self.num_outputs == 2 else 0 :]
        self._ranked = 1 < self.num_outputs <= ranking.MAX_CLASSES
        self._bins_per_octave = ranking.bins_per_octave(len(self._ranked_classes))
        self.columns = (
            OutputColumn("label", "answer", _dtype_of(self.classes), labels=self.classes),
            OutputColumn("probability", "confidence", "float32", is_probability=True),
            OutputColumn("probabilities", "detail", "float32", (self.num_outputs,), is_probability=True),
        )

    @staticmethod
    def problem(signature: Signature) -> str:
        classes = signature.classes
        if classes is None:
            return f"signature.classes: none for task {signature.task}"
        if not classes or len(set(classes)) < len(classes):
            return "signature.classes: there must be one or more, and each once"
        return ""

    @staticmethod
    def read_output(output: Tensor) -> Tensor:
        return output.softmax(dim=1)

    def answer(self, column: OutputColumn, values: Values) -> Any:
        if column.role == "detail":
            return values
        return self.confidence(values) if column.role == "confidence" else self.known_as(self.encoded(values))

    def json_rows(self, values: Values) -> list[dict[str, Any]]:
        return [
            {"label": self.classes[best], "probability": row_K[best], "probabilities": row_K}
            for best, row_K in zip(self.encoded(values).tolist(), values, strict=True)
        ]

    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[np.float64]:
        """Minus the natural logarithm of what the true class was given."""
        given_B = values[np.arange(len(target_B)), target_B].astype(np.float64)
        return -np.log(np.maximum(given_B, LEAST_PROBABILITY))

    def encoded(self, values: Values) -> NDArray[np.int64]:
        """Index of the most probable class."""
        return values.argmax(axis=1)

    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[np.bool_]:
        return self.encoded(values) != target_B

    def confidence(self, values: Values) -> NDArray[np.floating]:
        """Probability of the answered class."""
        return values.max(axis=1)

    def each_class(self, measures: Measures) -> dict[str, dict[str, float]]:
        counts = measures.counts
        unit = TIMES if counts["is_weighted"] else 1
        each = each_class(counts["hits"], counts["support"], counts["predicted"], unit)
        return {str(label): values for label, values in zip(self.classes, each, strict=True)}

    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        label_B, num_classes = self.encoded(values), self.num_outputs
        right_B = label_B == target_B
        given_B = np.take_along_axis(values, target_B[:, None], axis=1)
        before_B = (values > given_B).sum(axis=1) + ((values == given_B) & self._is_before(target_B)).sum(axis=1)
        in_top_B = (before_B < TOP).astype(np.int64)
        counts = {
            "hits": counted(target_B[right_B], None if times_B is None else times_B[right_B], num_classes),
            "support": counted(target_B, times_B, num_classes),
            "predicted": counted(label_B, times_B, num_classes),
            "in_top": np.array(int((in_top_B if times_B is None else in_top_B * times_B).sum())),
            "confidence": confidence_bins(right_B, self.confidence(values), times_B),
        }
        if self._ranked:
            is_true_BK = target_B[:, None] == self._ranked_classes[None]
            ranked = values[:, self._ranked_classes]
            counts["ranking"] = ranking.histograms(is_true_BK, ranked, self._bins_per_octave, times_B)
        return Measures(counts, {"log_loss": sums(self.row_losses(target_B, values), times_B)})

    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        del quantile
        counts = measures.counts
        by_class = counts["hits"], counts["support"], counts["predicted"]
        found = classification_metrics(*by_class)
        found["log_loss"] = measures.sums["log_loss"].mean or 0.0
        if self.num_outputs > TOP:
            found[f"top_{TOP}_accuracy"] = float(counts["in_top"] / counts["weight"])
        if "ranking" in counts:
            for name, area in (("roc_auc", ranking.roc_auc), ("pr_auc", ranking.pr_auc)):
                areas = [area(negative, positive) for negative, positive in counts["ranking"] if positive.any()]
                if defined := [value for value in areas if value == value]:  # NaN differs from itself
                    found[name] = float(np.mean(defined))
        found["expected_calibration_error"] = expected_calibration_error(
            counts["confidence"], 1.0 if counts["is_weighted"] else CONFIDENCE_UNIT
        )
        return found

    def _is_before(self, target_B: NDArray[Any]) -> NDArray[np.bool_]:
        """Classes that go before the true one where both are as probable, [B, K]: the first, as in the answer."""
        return np.arange(self.num_outputs)[None] < target_B[:, None]

    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        return [self.classes[index] for index in encoded_B.tolist()]


def _dtype_of(classes: tuple[Value, ...]) -> str:
    """That all classes fit; labels of several kinds are told as texts where a column has one."""
    kinds = {type(label) for label in classes}
    if len(kinds) != 1:
        return "string"
    return {bool: "bool", int: "int64", float: "float64"}.get(kinds.pop(), "string")
