"""A number for each row, or one of each of T targets, in the targets' units.  Shape letters: B rows, T targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table.sums import Sums, sums
from raypipe.model.measures import Measures
from raypipe.model.metrics import pinball_loss, regression_metrics
from raypipe.model.tasks.base import OutputColumn, Task, Values
from raypipe.records import Signature, Value
from raypipe.spec.metrics import of_target, pinball

if TYPE_CHECKING:
    from torch import Tensor


_SUMS = ("target", "error", "under", "over", "relative")
"""Names of what rows leave, of each target; see metrics.regression_metrics."""


class Regression(Task):
    """A network gives one number a target; the model tells them in the targets' units (see model/target.py).

    Values are [B], of several targets [B, T].
    """

    name = "regression"
    target_dtype: ClassVar[Literal["int64", "float32"]] = "float32"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.targets = signature.targets
        self.num_outputs = len(self.targets)
        self.is_one = isinstance(signature.target, str)
        self.target_shape = () if self.is_one else (self.num_outputs,)
        self.has_residuals = self.is_one
        self.wanted = "one number" if self.is_one else f"{self.num_outputs} numbers"
        self.columns = tuple(OutputColumn(target, "answer", "float32") for target in self.targets)

    @staticmethod
    def problem(signature: Signature) -> str:
        if problem := signature.target_problem:
            return problem
        found = signature.classes
        return "" if found is None else f"signature.classes: {len(found)} for task {signature.task}"

    @staticmethod
    def read_output(output: Tensor) -> Tensor:
        return output if output.dim() == 1 else output.squeeze(1)  # a trace refuses to ask for sizes

    def answer(self, column: OutputColumn, values: Values) -> Values:
        return self._by_target(values)[:, self.targets.index(column.name)]

    def json_rows(self, values: Values) -> Any:
        if self.is_one:
            return values
        return [dict(zip(self.targets, row, strict=True)) for row in self._by_target(values)]

    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[np.float64]:
        """How far off the number is, in the target's unit; of several targets the mean."""
        off = np.abs(values.astype(np.float64) - target_B)
        return off if off.ndim == 1 else off.mean(axis=1)

    def encoded(self, values: Values) -> Values:
        return values if self.is_one else self._by_target(values)

    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[np.bool_]:
        return np.ones(len(target_B), np.bool_)

    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        found: dict[str, Sums] = {}
        for target, true_B, told_B in zip(
            self.targets, self._by_target(target_B).T, self._by_target(values).T, strict=True
        ):
            found |= {f"{name} {target}": each for name, each in _sums(true_B, told_B, times_B).items()}
        return Measures(sums=found)

    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        each = {target: self._of_target(target, measures, quantile) for target in self.targets}
        found = {name: float(np.mean([of[name] for of in each.values()])) for name in each[self.targets[0]]}
        if self.is_one:
            return each[self.targets[0]]
        return found | {of_target(name, target): value for target, of in each.items() for name, value in of.items()}

    def _of_target(self, target: str, measures: Measures, quantile: float | None) -> dict[str, float]:
        true, error, under, over, relative = (measures.sums[f"{name} {target}"] for name in _SUMS)
        found = regression_metrics(true, error, under, over, relative)
        if quantile is not None:
            found[pinball(quantile)] = pinball_loss(under, over, quantile)
        return found

    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        if self.is_one:
            return [float(value) for value in encoded_B]
        return [", ".join(f"{t} {v:.6g}" for t, v in zip(self.targets, row, strict=True)) for row in encoded_B]

    def _by_target(self, values: NDArray[Any]) -> NDArray[Any]:
        """[B, T]."""
        return values.reshape(len(values), self.num_outputs)


def _sums(true_B: NDArray[Any], told_B: Values, times_B: NDArray[np.int64] | None) -> dict[str, Sums]:
    target = true_B.astype(np.float64)
    with np.errstate(over="ignore"):
        error = told_B.astype(np.float64) - target
        relative = np.abs(error) / np.maximum(np.abs(target), np.finfo(np.float64).eps)
    found = (target, error, np.maximum(-error, 0.0), np.maximum(error, 0.0), relative)
    most = np.finfo(np.float64).max
    return {name: sums(np.clip(each, -most, most), times_B) for name, each in zip(_SUMS, found, strict=True)}
