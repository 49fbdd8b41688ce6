"""Which of K labels a row has: none, one or several.  Shape letters: B rows, K labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table.sums import sums
from raypipe.model import ranking
from raypipe.model.measures import TIMES, Measures, counted
from raypipe.model.metrics import each_class, label_metrics
from raypipe.model.tasks.base import OutputColumn, Task, Values
from raypipe.records import Signature, Value

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PROBABILITY = 1e-12
"""What was given less counts as if it had been given this."""


class MultiLabel(Task):
    """A network gives a logit a label; the model tells the probability of each, and the labels above the threshold.

    Targets are bool [B, K].
    """

    name = "multi_label"
    target_dtype: ClassVar[Literal["int64", "float32"]] = "float32"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        assert signature.label_sets is not None, "a dataset version has it, and an artifact is refused without"
        self.labels: tuple[str, ...] = tuple(str(label) for label in signature.classes or ())
        self.threshold = signature.label_sets.threshold
        self.num_outputs = len(self.labels)
        self.target_shape = (self.num_outputs,)
        self.wanted = f"any of {self.num_outputs} labels"
        self._ranked = self.num_outputs <= ranking.MAX_CLASSES
        self._bins_per_octave = ranking.bins_per_octave(self.num_outputs)
        self.columns = (
            OutputColumn("labels", "answer", "string", labels=self.labels, is_set=True),
            OutputColumn("probabilities", "detail", "float32", (self.num_outputs,), is_probability=True),
        )

    @staticmethod
    def problem(signature: Signature) -> str:
        if signature.label_sets is None:
            return f"signature.label_sets: none for task {signature.task}"
        labels = signature.classes or ()
        if not labels or len(set(labels)) < len(labels) or not all(isinstance(label, str) for label in labels):
            return "signature.classes: there must be one or more texts, and each once"
        if problem := signature.target_problem:
            return problem
        if signature.label_sets.separator is None and signature.targets != labels:
            return "signature.classes: where each label is a column they must be the targets"
        return ""

    @staticmethod
    def read_output(output: Tensor) -> Tensor:
        return output.sigmoid()

    def answer(self, column: OutputColumn, values: Values) -> Any:
        return values if column.role == "detail" else self._sets(self.encoded(values))

    def json_rows(self, values: Values) -> list[dict[str, Any]]:
        sets = self._sets(self.encoded(values))
        return [{"labels": given, "probabilities": row_K} for given, row_K in zip(sets, values, strict=True)]

    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[np.float64]:
        """Minus the natural logarithm of what was given to the truth of each label, their mean."""
        given = values.astype(np.float64)
        of_truth = np.where(target_B.astype(bool), given, 1.0 - given)
        return -np.log(np.maximum(of_truth, LEAST_PROBABILITY)).mean(axis=1)

    def encoded(self, values: Values) -> NDArray[np.bool_]:
        """Whether each label is given, [B, K]."""
        return values >= self.threshold

    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[np.bool_]:
        return (self.encoded(values) != target_B.astype(bool)).any(axis=1)

    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        return [", ".join(labels) or "no label" for labels in self._sets(encoded_B.astype(bool))]

    def each_class(self, measures: Measures) -> dict[str, dict[str, float]]:
        counts = measures.counts
        unit = TIMES if counts["is_weighted"] else 1
        each = each_class(counts["hits"], counts["support"], counts["predicted"], unit)
        return dict(zip(self.labels, each, strict=True))

    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        true, told = target_B.astype(bool), self.encoded(values)
        counts = {
            "hits": _of_labels(true & told, times_B),
            "support": _of_labels(true, times_B),
            "predicted": _of_labels(told, times_B),
            "right": counted((true == told).all(axis=1).astype(np.int64), times_B, 2),
        }
        if self._ranked:
            counts["ranking"] = ranking.histograms(true, values, self._bins_per_octave, times_B)
        return Measures(counts, {"log_loss": sums(self.row_losses(true, values), times_B)})

    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        del quantile
        counts = measures.counts
        right, rows = int(counts["right"][1]), int(counts["weight"])
        found = label_metrics(counts["hits"], counts["support"], counts["predicted"], right, rows)
        found["log_loss"] = measures.sums["log_loss"].mean or 0.0
        if "ranking" in counts:
            for name, area in (("mean_average_precision", ranking.pr_auc), ("roc_auc", ranking.roc_auc)):
                areas = [area(negative, positive) for negative, positive in counts["ranking"] if positive.any()]
                if defined := [value for value in areas if value == value]:  # NaN differs from itself
                    found[name] = float(np.mean(defined))
        return found

    def _sets(self, given_BK: NDArray[np.bool_]) -> list[list[str]]:
        return [[self.labels[k] for k in np.flatnonzero(row_K).tolist()] for row_K in given_BK]


def _of_labels(is_BK: NDArray[np.bool_], times_B: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """How many rows, [K]."""
    return is_BK.sum(axis=0) if times_B is None else (is_BK * times_B[:, None]).sum(axis=0)
