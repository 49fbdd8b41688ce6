"""What the metrics of a test split hide: how sure the model was and how right, how far off, and on which rows.

Stored beside the evaluation's record, for a person who looks at the run; nothing is decided by it.

Shape letters: B rows, K classes.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.model.metrics import CALIBRATION_BINS
from raypipe.model.tasks import Task
from raypipe.records import CalibrationBin, EvaluationDetails, Histogram, Residuals, WorstRow

NUM_RESIDUAL_BINS = 40
NUM_CELLS = 24
"""A side of the square of predicted against true values."""

NUM_WORST = 12

MAX_TEXT_CHARS = 200
MAX_VALUES = 12
"""Of one of the worst rows: its first columns."""

MAX_PICTURE_SIDE = 128
"""A larger picture is left out: the details are read whole."""


def details_of(
    target_B: NDArray[Any],
    answer_B: NDArray[Any],
    confidence_B: NDArray[np.float64] | None,
    worst: Sequence[WorstRow],
    *,
    has_residuals: bool = True,
) -> EvaluationDetails:
    """The details of a whole split.

    Args:
        target_B, answer_B: class indices, numbers in the target's unit, or ids of texts [B, T].
        confidence_B: probability of the answer; None for numbers.
        worst: the rows to show.
        has_residuals: see Task.
    """
    if confidence_B is None and not has_residuals:
        return EvaluationDetails(worst=tuple(worst))
    if confidence_B is None:
        residuals = residuals_of(target_B.astype(np.float64), answer_B.astype(np.float64))
        return EvaluationDetails(residuals=residuals, worst=tuple(worst))
    right_B = (target_B == answer_B).reshape(len(target_B), -1).all(axis=1)
    return EvaluationDetails(calibration=calibration_of(right_B, confidence_B), worst=tuple(worst))


def calibration_of(right_B: NDArray[np.bool_], confidence_B: NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
    """How often the answer was right where the model was this sure; bins without rows are left out."""
    bin_B = np.minimum((confidence_B * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bin_B, minlength=CALIBRATION_BINS)
    sums = np.bincount(bin_B, weights=confidence_B, minlength=CALIBRATION_BINS)
    rights = np.bincount(bin_B, weights=right_B, minlength=CALIBRATION_BINS)
    return tuple(
        CalibrationBin(num_rows=int(n), confidence=float(total / n), accuracy=float(right / n))
        for n, total, right in zip(counts, sums, rights, strict=True)
        if n
    )


def residuals_of(target_B: NDArray[np.float64], value_B: NDArray[np.float64]) -> Residuals:
    """Predicted less true, as a histogram of those that float64 can hold; and predicted against true on one scale."""
    with np.errstate(over="ignore"):
        residual_B = value_B - target_B
    residual_B = residual_B[np.isfinite(residual_B)]
    spread = residual_B if len(residual_B) else np.zeros(1)
    counts, edges = np.histogram(residual_B, bins=_edges(spread, NUM_RESIDUAL_BINS))
    scale = _edges(np.concatenate([target_B, value_B]), NUM_CELLS)
    cells, _, _ = np.histogram2d(target_B, value_B, bins=[scale, scale])
    return Residuals(
        histogram=Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist())),
        scale=tuple(scale.tolist()),
        cells=tuple(tuple(map(int, row)) for row in cells.tolist()),
    )


def _edges(values: NDArray[np.float64], num_bins: int) -> NDArray[np.float64]:
    """Equal bins from the smallest to the largest value; where there is one value, it lies in the middle of its bin."""
    low, high = float(values.min()), float(values.max())
    if not low < high:
        return np.array([low - 0.5, low + 0.5]) if abs(low) < 2**52 else np.sort([low, np.nextafter(low, 0.0)])
    share = np.linspace(0.0, 1.0, num_bins + 1)
    edges = low * (1 - share) + high * share  # not by their difference, which may be infinite
    edges[[0, -1]] = low, high
    return np.unique(edges)


def worst_rows(
    start: int,
    row_id_B: NDArray[np.uint64],
    target_B: NDArray[Any],
    values: NDArray[np.floating],
    columns: Mapping[str, NDArray[Any]],
    task: Task,
    above: float = -1.0,
) -> list[WorstRow]:
    """The NUM_WORST rows with the largest loss, the worst first; of a classification only those answered wrongly.

    Args:
        start: index of the first of these rows in the split.
        columns: their inputs, as the model was given them.
        above: rows of this loss or less are left out, before anything is drawn of them.
    """
    loss_B = task.row_losses(target_B, values)
    order = np.argsort(-loss_B, kind="stable")
    order = order[loss_B[order] > above]
    shown = order[task.is_wrong(target_B[order], values[order])][:NUM_WORST]
    predicted, true = task.known_as(task.encoded(values[shown])), task.known_as(target_B[shown])
    sure = task.confidence(values[shown])
    return [
        WorstRow(
            row=start + i,
            row_id=f"{int(row_id_B[i]):016x}",
            true=true[place],
            predicted=predicted[place],
            confidence=None if sure is None else float(sure[place]),
            loss=float(loss_B[i]),
            values=_shown(columns, i),
            picture=_picture(columns, i),
        )
        for place, i in enumerate(shown.tolist())
    ]


def merged(worst: Sequence[WorstRow]) -> tuple[WorstRow, ...]:
    """The worst of all pieces' worst."""
    return tuple(sorted(worst, key=lambda row: (-row.loss, row.row))[:NUM_WORST])


def _shown(columns: Mapping[str, NDArray[Any]], row: int) -> dict[str, str]:
    """What a table has room for; missing values are left out."""
    values = [(name, column[row]) for name, column in columns.items() if np.ndim(column[row]) == 0]
    return {
        name: str(value)[:MAX_TEXT_CHARS]
        for name, value in values[:MAX_VALUES]
        if value is not None and value == value  # NaN differs from itself
    }


def _picture(columns: Mapping[str, NDArray[Any]], row: int) -> str | None:
    """The first column that is one, as a PNG in a data URI; dark ones are brightened."""
    for column in columns.values():
        image = column[row]
        if column.dtype != np.uint8 or image.ndim not in (2, 3) or max(image.shape[:2]) > MAX_PICTURE_SIDE:
            continue
        if image.ndim == 2 or image.shape[2] in (1, 3):
            return "data:image/png;base64," + base64.b64encode(png(image)).decode()
    return None


def png(image: NDArray[np.uint8]) -> bytes:
    """Grey [H, W] or [H, W, 1], or red, green, blue [H, W, 3], as a PNG (RFC 2083) whose brightest value is white."""
    height, width = image.shape[:2]
    bright = (image.astype(np.float64) * (255 / max(1, int(image.max())))).round().astype(np.uint8)
    lines = bright.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    colour = 2 if lines.shape[1] == 3 * width else 0
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(filtered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
