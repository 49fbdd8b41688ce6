"""What a page tells of an evaluation: metrics, gates, confusions, calibration or residuals, the worst rows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raypipe.records import EvaluationDetails, EvaluationReport, WorstRow
from raypipe.report.cells import Table
from raypipe.report.charts import Charts, figure

MAX_TABLE_CLASSES = 20
"""A confusion matrix of more classes is a picture and the most frequent confusions."""

MAX_CONFUSIONS = 20
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
"""What a picture in the details must be: nothing else may come into a page from there."""


@dataclass(frozen=True)
class Confusion:
    """One true class: how many of its rows were taken for each class, and the shade of each (0 to 5)."""

    label: str
    cells: Sequence[tuple[int, int]]


def evaluation_parts(
    evaluation: EvaluationReport | None, details: EvaluationDetails | None, charts: Charts
) -> dict[str, Any]:
    """By the names that the page's template knows; None, or nothing in it, for what there is not."""
    weighted = "" if evaluation is None or not evaluation.weighted_text else f", rows{evaluation.weighted_text}"
    return {
        "metrics": None
        if evaluation is None
        else Table(f"Metrics{weighted}", ("metric", "value"), [*evaluation.metrics.items()]),
        "gates": None if evaluation is None else _gates(evaluation),
        "per_class": None if evaluation is None else _per_class(evaluation, weighted),
        **_confusion(evaluation, charts),
        **_details(details, charts),
    }


def _per_class(evaluation: EvaluationReport, weighted: str) -> Table | None:
    if not evaluation.per_class:
        return None
    names = list(next(iter(evaluation.per_class.values())))
    rows = [(label, *(values.get(name) for name in names)) for label, values in evaluation.per_class.items()]
    return Table(f"Metrics of each class{weighted}", ("class", *names), rows)


def _confusion(evaluation: EvaluationReport | None, charts: Charts) -> dict[str, Any]:
    """The matrix as a table with shades, or where it is large as a picture with its most frequent confusions."""
    told: dict[str, Any] = {"confusion": None, "confusion_picture": None, "confusions": None}
    if evaluation is None or not evaluation.confusion:
        return told
    counts = evaluation.confusion
    labels = list(evaluation.per_class or map(str, range(len(counts))))
    wrong = sorted(((n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j), reverse=True)
    rows = [(labels[i], labels[j], n) for n, i, j in wrong[:MAX_CONFUSIONS]]
    if rows:
        told["confusions"] = Table("Most frequent confusions", ("true class", "predicted class", "rows"), rows)
    if len(counts) > MAX_TABLE_CLASSES:
        desc = f"{len(counts)} classes; {len(wrong)} pairs of classes are confused"
        told["confusion_picture"] = charts.heat_map("Confusion matrix: true down, predicted across", desc, counts)
    else:
        told["confusion"] = [
            Confusion(label, [(n, math.ceil(5 * n / (sum(row) or 1))) for n in row])
            for label, row in zip(labels, counts, strict=True)
        ]
    return told


def _details(details: EvaluationDetails | None, charts: Charts) -> dict[str, Any]:
    parts: dict[str, Any] = dict.fromkeys(
        ("calibration", "calibration_error", "calibration_bins", "residuals", "worst")
    )
    if details is None:
        return parts
    if details.calibration:
        points = [(each.confidence, each.accuracy) for each in details.calibration]
        parts["calibration"] = charts.lines(
            "Calibration: share of right answers by how sure the model was",
            {"this model": points, "as sure as right": [(0.0, 0.0), (1.0, 1.0)]},
            "mean probability of the answered class",
        )
        parts["calibration_error"] = details.calibration_error
        bins = [(each.confidence, each.accuracy, each.num_rows) for each in details.calibration]
        headers = ("mean probability of the answered class", "share of right answers", "rows")
        parts["calibration_bins"] = Table("Calibration", headers, bins)
    if details.residuals is not None:
        histogram, scale, cells = details.residuals.histogram, details.residuals.scale, details.residuals.cells
        desc = f"true value downward, predicted across, both from {figure(scale[0])} to {figure(scale[-1])}"
        parts["residuals"] = [
            charts.histogram("Residuals: predicted less true", histogram.edges, histogram.counts, large=True),
            charts.heat_map(f"Predicted against true: {desc}", desc, cells),
        ]
    if details.worst:
        parts["worst"] = _worst(details.worst)
    return parts


def _worst(rows: Sequence[WorstRow]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    pictured, sure = any(row.picture for row in rows), any(row.confidence is not None for row in rows)
    columns_before: dict[str, list[Any]] = {
        "row": [row.row for row in rows],
        **({"picture": [_image(row) for row in rows]} if pictured else {}),
        "true": [row.true for row in rows],
        "predicted": [row.predicted for row in rows],
        **({"probability": [row.confidence for row in rows]} if sure else {}),
        ("off by" if all(isinstance(row.true, float) for row in rows) else "loss"): [row.loss for row in rows],
    }
    headers = (*columns_before, *columns)
    values = [[row.values.get(name) for name in columns] for row in rows]
    shown = [(*front, *rest) for front, rest in zip(zip(*columns_before.values(), strict=True), values, strict=True)]
    return Table("The rows that were answered worst", headers, shown)


def _image(row: WorstRow) -> Markup:
    if row.picture is None or not PICTURE.fullmatch(row.picture):
        return Markup("–")
    return Markup('<img src="{}" alt="row {}" width="56">').format(row.picture, row.row)


def _gates(evaluation: EvaluationReport) -> Table | None:
    rows = [
        (gate.rule, "holds" if gate.passed else "does NOT hold", gate.found, gate.reason) for gate in evaluation.gates
    ]
    return Table("Gates", ("gate", "outcome", "found", "reason"), rows) if rows else None
