"""EvaluationReport -> Markdown for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from raypipe.records import EvaluationReport

MAX_MATRIX_CLASSES = 20
"""More classes than this make a table nobody reads; the most frequent confusions are listed instead."""

MAX_CONFUSIONS = 20

MAX_RECORDED_CLASSES = 100
"""A record keeps figures of each class, and of each pair, for so many at most."""


def to_markdown(report: EvaluationReport, title: str) -> str:
    """The whole report: verdict, gates, metrics, each class, confusions."""
    parts = [
        f"# {title}",
        f"Artifact `{report.artifact.digest[:12]}` on dataset `{report.dataset}`, {report.rows_text}. "
        + _verdict(report),
    ]
    if report.gates:
        rows = [["yes" if g.passed else "**no**", g.rule, g.reason] for g in report.gates]
        parts += ["## Gates", _table(["holds", "rule", "reason"], rows)]
    parts += [
        f"## Metrics{_weighted(report)}",
        _table(["metric", "value"], [[k, f"{v:.6g}"] for k, v in report.metrics.items()]),
    ]
    if report.per_class is not None:
        names = ["precision", "recall", "f1"]
        rows = [
            [
                label,
                *(f"{values[name]:.4f}" for name in names),
                f"{values['support']:.{0 if report.weighted_by is None else 4}f}",
            ]
            for label, values in report.per_class.items()
        ]
        parts += [f"## Each class{_weighted(report)}", _table(["class", *names, "support"], rows)]
    if report.confusion is not None and report.per_class is not None:
        parts += [
            "## Confusions" if report.weighted_by is None else "## Confusions, in rows",
            _confusions(report.confusion, list(report.per_class)),
        ]
    return "\n\n".join(parts) + "\n"


def recorded(report: EvaluationReport, key: str) -> tuple[EvaluationReport, bytes | None]:
    """The report as a record may keep it, and what goes under `key` beside it: the confusions as CSV, if they do."""
    confusion, labels = report.confusion, list(report.per_class or {})
    if len(labels) <= MAX_RECORDED_CLASSES:
        return report, None
    small = report.model_copy(update={"confusion": None, "per_class": None})
    if confusion is None:  # a row may have several of these labels: none is taken for another
        return small, None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("true", "predicted", "rows"))
    for true, counts in zip(labels, confusion, strict=True):
        writer.writerows((true, predicted, n) for predicted, n in zip(labels, counts, strict=True) if n)
    return small.model_copy(update={"confusion_key": key}), text.getvalue().encode()


def _weighted(report: EvaluationReport) -> str:
    return report.weighted_text and f" of rows{report.weighted_text}"


def _verdict(report: EvaluationReport) -> str:
    if not report.gates:
        return "No gates were set."
    failed = sum(not gate.passed for gate in report.gates)
    if failed:
        return f"**{failed} of {len(report.gates)} gates do not hold: it may not be registered.**"
    return f"All {len(report.gates)} gates hold."


def _confusions(confusion: tuple[tuple[int, ...], ...], labels: list[str]) -> str:
    if len(labels) <= MAX_MATRIX_CLASSES:
        rows = [[f"**{label}**", *map(str, counts)] for label, counts in zip(labels, confusion, strict=True)]
        return "Rows: true class; columns: predicted class.\n\n" + _table(["", *labels], rows)
    mistakes = [
        (count, labels[true], labels[predicted])
        for true, counts in enumerate(confusion)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    mistakes.sort(key=lambda mistake: -mistake[0])
    rows = [[true, predicted, str(count)] for count, true, predicted in mistakes[:MAX_CONFUSIONS]]
    told = f"The {len(rows)} most frequent of {len(mistakes)} kinds of mistakes ({len(labels)} classes)."
    return told + "\n\n" + _table(["true", "predicted", "rows"], rows)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
