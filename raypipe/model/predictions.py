"""What a model answers; apart from the Predictor, as who only hands answers on needs no torch. Its task (tasks/) tells
what the values mean and how they are written.

Shape letters: B rows, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.records import Value


@dataclass(frozen=True)
class Predictions:
    """Answers for B rows.

    Attributes:
        classes: label of each output; None for regression.
        values: float32 probabilities [B, K], or predicted numbers [B], of several targets [B, T], in the target's unit,
            float64 where the target was transformed for the training, else float32.
        step_size: how far a value moves where the network's output moves by 1; rounding differences are in proportion.
    """

    classes: tuple[Value, ...] | None
    values: NDArray[np.floating]
    step_size: float = 1.0

    def are_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        flat = self.values.reshape(-1)
        # the sum of squares, one pass for nearly all answers; of very large values it is not finite either
        return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())

    def labels(self) -> NDArray[np.int64]:
        """Index of the most probable class [B]."""
        return self.values.argmax(axis=1)
