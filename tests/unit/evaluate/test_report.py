"""The report for people says the verdict, the reasons and where the mistakes are."""

from __future__ import annotations

import math

from raypipe.evaluate.report import MAX_CONFUSIONS, MAX_RECORDED_CLASSES, recorded, to_markdown
from raypipe.records import ArtifactRef, EvaluationReport, GateResult

ARTIFACT = ArtifactRef(key="runs/r1/train/artifact", digest="ab" * 32)


def classes(num: int) -> EvaluationReport:
    """`num` classes of 3 rows, one of which is taken for the next class."""
    confusion = tuple(tuple(2 if i == j else 1 if j == (i + 1) % num else 0 for j in range(num)) for i in range(num))
    each = {f"c{i}": {"precision": 0.5, "recall": 2 / 3, "f1": 4 / 7, "support": 3.0} for i in range(num)}
    return EvaluationReport(
        artifact=ARTIFACT,
        dataset="d1",
        num_rows=3 * num,
        metrics={"accuracy": 2 / 3},
        per_class=each,
        confusion=confusion,
    )


def test_report_without_gates_says_so():
    text = to_markdown(classes(3), "Title")
    assert text.startswith("# Title\n\nArtifact `abababababab` on dataset `d1`, 9 test rows. No gates were set.\n")
    assert "| accuracy | 0.666667 |" in text
    assert "| c1 | 0.5000 | 0.6667 | 0.5714 | 3 |" in text
    assert "| **c1** | 0 | 2 | 1 |" in text


def test_report_with_a_failed_gate_says_which_and_why():
    gates = (
        GateResult(metric="accuracy", rule="accuracy >= 0.5", found=0.67, passed=True, reason="fine"),
        GateResult(metric="accuracy", rule="accuracy >= 0.9", found=0.67, passed=False, reason="0.67 is 0.23 under"),
    )
    text = to_markdown(classes(2).model_copy(update={"gates": gates}), "T")
    assert "**1 of 2 gates do not hold: it may not be registered.**" in text
    assert "| **no** | accuracy >= 0.9 | 0.67 is 0.23 under |" in text


def test_report_with_all_gates_held_says_so():
    gate = GateResult(metric="accuracy", rule="r", found=1, passed=True, reason="fine")
    assert "All 1 gates hold." in to_markdown(classes(2).model_copy(update={"gates": (gate,)}), "T")


def test_report_of_many_classes_lists_the_most_frequent_mistakes():
    text = to_markdown(classes(50), "T")
    assert f"The {MAX_CONFUSIONS} most frequent of 50 kinds of mistakes (50 classes)." in text
    assert "| c0 | c1 | 1 |" in text
    assert max(line.count("|") for line in text.splitlines()) < 10


def test_report_of_a_regression_has_only_metrics():
    report = EvaluationReport(artifact=ARTIFACT, dataset="d", num_rows=1, metrics={"mae": 0.5, "r2": math.nan})
    text = to_markdown(report, "T")
    assert "| mae | 0.5 |\n| r2 | nan |" in text
    assert "class" not in text


def test_report_with_a_label_that_looks_like_a_table_stays_one_table():
    report = classes(1)
    report = report.model_copy(update={"per_class": {"a|b\nc": report.per_class["c0"]}}) if report.per_class else report
    assert "| a\\|b c | 0.5000 |" in to_markdown(report, "T")


def test_record_of_many_classes_does_not_grow_with_them_and_names_where_the_confusions_are():
    report = classes(400)
    record, confusions = recorded(report, "runs/r1/evaluate/confusions.csv")
    assert len(record.to_json()) < 1000 < len(report.to_json())
    assert record.confusion_key == "runs/r1/evaluate/confusions.csv"
    assert (record.metrics, record.num_rows) == (report.metrics, report.num_rows)
    assert confusions is not None
    lines = confusions.decode().splitlines()
    assert lines[:3] == ["true,predicted,rows", "c0,c0,2", "c0,c1,1"]
    assert sum(int(line.rsplit(",", 1)[1]) for line in lines[1:]) == report.num_rows


def test_record_of_rows_with_any_of_many_labels_does_not_grow_with_them():
    report = classes(MAX_RECORDED_CLASSES + 1).model_copy(update={"confusion": None})
    record, confusions = recorded(report, "key")
    assert (record.per_class, record.confusion_key, confusions) == (None, None, None)
    assert recorded(classes(3).model_copy(update={"confusion": None}), "key")[0].per_class is not None


def test_record_of_few_classes_keeps_the_matrix():
    report = classes(MAX_RECORDED_CLASSES)
    assert recorded(report, "key") == (report, None)
