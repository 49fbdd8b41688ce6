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

from raypipe.records import CalibrationBin, EvaluationDetails, Histogram, Residuals, Signature, WorstRow

NUM_BINS = 10
"""Of confidence, as wide as each other."""

NUM_RESIDUAL_BINS = 40
NUM_CELLS = 24
"""A side of the square of predicted against true values."""

NUM_WORST = 12

MAX_TEXT_CHARS = 200
MAX_VALUES = 12
"""Of one of the worst rows: its first columns."""

MAX_PICTURE_SIDE = 128
"""A larger picture is left out: the details are read whole."""

LEAST_PROBABILITY = 1e-12
"""A class that was given less counts as if it had been given this."""


def details_of(
    target_B: NDArray[Any],
    answer_B: NDArray[Any],
    confidence_B: NDArray[np.float64] | None,
    worst: Sequence[WorstRow],
) -> EvaluationDetails:
    """The details of a whole split.

    Args:
        target_B, answer_B: class indices, or numbers in the target's unit.
        confidence_B: probability of the answered class; None for numbers.
        worst: the rows to show.
    """
    if confidence_B is None:
        residuals = residuals_of(target_B.astype(np.float64), answer_B.astype(np.float64))
        return EvaluationDetails(residuals=residuals, worst=tuple(worst))
    return EvaluationDetails(calibration=calibration_of(target_B == answer_B, confidence_B), worst=tuple(worst))


def calibration_of(right_B: NDArray[np.bool_], confidence_B: NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
    """How often the answer was right where the model was this sure; bins without rows are left out."""
    bin_B = np.minimum((confidence_B * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bin_B, minlength=NUM_BINS)
    sums = np.bincount(bin_B, weights=confidence_B, minlength=NUM_BINS)
    rights = np.bincount(bin_B, weights=right_B, minlength=NUM_BINS)
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
    counts, edges = np.histogram(residual_B, bins=_edges(residual_B, NUM_RESIDUAL_BINS))
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


def loss_of(target_B: NDArray[Any], values: NDArray[np.floating], signature: Signature) -> NDArray[np.float64]:
    """How badly each row was answered: minus the logarithm of what its class was given, or how far off a number is.

    Args:
        values: probabilities [B, K], or numbers [B].
    """
    if signature.classes is None:
        return np.abs(values.astype(np.float64) - target_B)
    given_B = values[np.arange(len(target_B)), target_B].astype(np.float64)
    return -np.log(np.maximum(given_B, LEAST_PROBABILITY))


def worst_rows(
    start: int,
    row_id_B: NDArray[np.uint64],
    target_B: NDArray[Any],
    values: NDArray[np.floating],
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    above: float = -1.0,
) -> list[WorstRow]:
    """The NUM_WORST rows with the largest loss, the worst first; of a classification only those answered wrongly.

    Args:
        start: index of the first of these rows in the split.
        columns: their inputs, as the model was given them.
        above: rows of this loss or less are left out, before anything is drawn of them.
    """
    loss_B = loss_of(target_B, values, signature)
    classes = signature.classes
    answer_B = values if classes is None else values.argmax(axis=1)
    order = np.argsort(-loss_B, kind="stable")
    order = order[loss_B[order] > above]
    if classes is not None:
        order = order[answer_B[order] != target_B[order]]
    return [
        WorstRow(
            row=start + i,
            row_id=f"{int(row_id_B[i]):016x}",
            true=float(target_B[i]) if classes is None else classes[int(target_B[i])],
            predicted=float(answer_B[i]) if classes is None else classes[int(answer_B[i])],
            confidence=None if classes is None else float(values[i].max()),
            loss=float(loss_B[i]),
            values=_shown(columns, i),
            picture=_picture(columns, i),
        )
        for i in order[:NUM_WORST].tolist()
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
