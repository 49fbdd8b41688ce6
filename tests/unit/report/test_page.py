"""The page of a run: what it shows of each kind of run, and that nothing in it can act or leave it.

One file, since every test renders a page out of the same few records and reads it with the same parser.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raypipe.cli.main import app
from raypipe.errors import DataError
from raypipe.pipeline.state import RunState
from raypipe.records import (
    ArtifactRef,
    CalibrationBin,
    Column,
    ColumnProfile,
    DataProfile,
    DatasetVersion,
    DataWarning,
    EpochMetrics,
    EvaluationDetails,
    EvaluationReport,
    GateResult,
    Goodput,
    Histogram,
    Residuals,
    Signature,
    Split,
    StageRecord,
    TopValue,
    TrainResult,
    Trial,
    TuneResult,
    WorstRow,
)
from raypipe.report.page import MAX_COLUMNS, render, write_report
from raypipe.report.read import read_report, time_shares
from raypipe.runtime.progress import Progress
from raypipe.storage import Store, layout, open_store
from raypipe.storage.documents import write_document

PIXEL = "data:image/png;base64,iVBORw0KGgo="

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x00"

runner = CliRunner()


class Page(HTMLParser):
    """What a page holds: tags with attributes, and all text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def prepared(store: Store, column: str = "petal", **changes: Any) -> DatasetVersion:
    """A dataset of one column of numbers and one of words, with its profile and one row set aside."""
    number = ColumnProfile(
        name=column,
        dtype="float64",
        count=10,
        nulls=1,
        min=0.5,
        max=2.5,
        mean=1.0,
        histogram=Histogram(edges=(0.5, 1.5, 2.5), counts=(7, 2)),
    )
    word = ColumnProfile(name="colour", dtype="string", count=10, nulls=0, top=(TopValue(value="blue", count=9),))
    key, bad = layout.profile("flowers", "v1"), layout.bad_rows("flowers", "v1")
    write_document(store, key, DataProfile(name="flowers", version="v1", num_rows=10, columns=(number, word)))
    store.write(bad, json.dumps({"row": 3, "reason": f"{column}: no number"}).encode())
    dataset = DatasetVersion(
        name="flowers",
        version="v1",
        signature=Signature(inputs=(Column(name=column, dtype="float64"),), task="classification", target="colour"),
        splits={
            "train": Split(num_rows=8, shards=()),
            "val": Split(num_rows=1, shards=()),
            "test": Split(num_rows=1, shards=()),
        },
        transforms=(),
        feature_shape=(1,),
        num_bad_rows=1,
        bad_rows_key=bad,
        profile_key=key,
        content_fingerprint="f00d",
    )
    return dataset.model_copy(update=changes)


def trained(**metrics: float) -> TrainResult:
    last = metrics or {"train_loss": 0.25, "val_loss": 0.5, "val_accuracy": 0.75}
    return TrainResult(
        run_id="r1",
        dataset="v1",
        artifact=ArtifactRef(key="runs/r1/train/artifact", digest="ab12cd34"),
        history=tuple(
            EpochMetrics(epoch=n, step=10 * n, metrics={name: value * (4 - n) for name, value in last.items()})
            for n in (1, 2, 3)
        ),
        best_epoch=3,
        num_steps=30,
        num_parameters=99,
        num_workers=2,
        rows_per_s=1234.5,
    )


def evaluated(labels: list[str], confusion: list[list[int]]) -> EvaluationReport:
    return EvaluationReport(
        artifact=ArtifactRef(key="runs/r1/train/artifact", digest="ab12cd34"),
        dataset="v1",
        num_rows=sum(map(sum, confusion)),
        metrics={"accuracy": 0.875},
        per_class={label: {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 8} for label in labels},
        confusion=tuple(map(tuple, confusion)),
        gates=(
            GateResult(metric="accuracy", rule="accuracy >= 0.9", found=0.875, passed=False, reason="0.875 is less"),
        ),
    )


def detailed(store: Store, report: EvaluationReport, details: EvaluationDetails) -> EvaluationReport:
    write_document(store, layout.evaluation_details("r1"), details)
    return report.model_copy(update={"details_key": layout.evaluation_details("r1")})


def searched(store: Store, values: list[Any], metrics: list[float | None]) -> TuneResult:
    trials = tuple(
        Trial(
            trial_id=f"t{n}",
            values={"train.optimizer.lr": value},
            status="completed" if metric is not None else "failed",
            metric=metric,
            epochs=3,
        )
        for n, (value, metric) in enumerate(zip(values, metrics, strict=True))
    )
    return TuneResult(
        metric="val_accuracy",
        mode="max",
        best_trial="t1",
        best_values={"train.optimizer.lr": values[1]},
        dataset=prepared(store),
        best=trained(),
        trials=trials,
    )


def ran(store: Store, records: dict[str, StageRecord], fails_in: str | None = None, name: str = "flowers") -> str:
    """A run that left these records, and where wanted failed in the stage after them."""
    state = RunState(store, "r1", name)
    spec = {"name": name, "train": {"epochs": 3, "note": "s3://me:secret@host/data"}}
    state.describe(
        {
            "spec": spec,
            "file": "/p.yaml",
            "overrides": ["train.epochs=3"],
            "raypipe": "1.0",
            "started_at": "2026-03-01T10:00:00Z",
        }
    )
    progress = Progress("r1", stream=None)
    for stage, record in records.items():
        state.begin(stage, {"n": stage})
        with progress.stage(stage):
            state.save(stage, {"n": stage}, record)
    if fails_in is not None:
        state.begin(fails_in, {"n": fails_in})
        with pytest.raises(DataError), progress.stage(fails_in):
            raise DataError("12 of 20 rows are bad: no number in column 'petal'")
    progress.save(store)
    return "r1"


def page_of(store: Store, run_id: str = "r1") -> Page:
    return Page(render(read_report(store, run_id)))


def whole(store: Store, column: str = "petal") -> dict[str, StageRecord]:
    return {
        "data": prepared(store, column),
        "train": trained(),
        "evaluate": evaluated(["blue", "red"], [[7, 1], [2, 6]]),
    }


def test_a_finished_run_shows_data_curves_metrics_gates_and_digests(store: Store):
    ran(store, whole(store))
    page = page_of(store)
    for text in (
        "petal",
        "1 (10.0%)",
        "blue (9)",
        "petal: no number",
        "train.epochs",
        "val_accuracy by epoch",
        "accuracy >= 0.9",
        "does NOT hold",
        "ab12cd34",
        "f00d",
    ):
        assert text in page.text, text
    assert "9 values from 0.5 to 2.5 in 2 equal bins" in page.text
    assert "train_loss from 0.75 to 0.25" in page.text


def test_confusions_are_told_by_class_the_most_frequent_first(store: Store):
    ran(store, whole(store))
    text = "".join(page_of(store).text.split())
    assert "trueclasspredictedclassrowsredblue2bluered1" in text


def test_a_matrix_of_many_classes_is_a_picture_of_what_is_not_empty(store: Store):
    labels = [f"c{n}" for n in range(60)]
    confusion = [[5 if i == j else 1 if j == 0 else 0 for j in range(60)] for i in range(60)]
    ran(store, {"evaluate": evaluated(labels, confusion)})
    page = page_of(store)
    assert "60 classes; 59 pairs of classes are confused" in page.text
    assert len([attrs for attrs in page.named("rect") if "opacity" in attrs]) == 60 + 59


def test_a_search_shows_each_trial_and_what_its_parameter_did(store: Store):
    ran(store, {"data": prepared(store), "tune": searched(store, [0.1, 0.001, 0.01], [0.5, 0.9, None])})
    page = page_of(store)
    assert "2 trials; the best is t1" in page.text and "2 trials, val_accuracy from 0.5 to 0.9" in page.text
    assert [attrs["class"] for attrs in page.named("polyline") if "trial" in str(attrs["class"])] == [
        "trial",
        "trial best",
    ]
    rows = page.text[page.text.index("Trials, the best first") :]
    assert rows.index("t1") < rows.index("t0") < rows.index("t2") and "failed" in rows


def test_a_search_over_words_numbers_and_infinity_is_drawn(store: Store):
    ran(store, {"tune": searched(store, ["adamw", HOSTILE, 3], [0.5, float("inf"), 0.25])})
    assert "2 trials; the best is t1" in page_of(store).text


def test_a_regression_has_metrics_and_no_confusion(store: Store):
    report = evaluated([], []).model_copy(update={"metrics": {"rmse": 12.5}, "per_class": None, "confusion": None})
    ran(store, {"data": prepared(store), "train": trained(train_loss=2.0, val_rmse=3.0), "evaluate": report})
    page = page_of(store)
    assert "rmse" in page.text and "12.5" in page.text and "onfusion" not in page.text


def test_how_sure_the_model_was_and_its_worst_rows_are_shown_and_no_strange_picture_comes_in(store: Store):
    worst = [
        WorstRow(row=3, row_id="0" * 16, true=HOSTILE, predicted="red", confidence=0.75, loss=4.5, picture=picture)
        for picture in (PIXEL, 'data:image/png;base64,AA=="><script>', "data:text/html;base64,AAAA", "http://a/b.png")
    ]
    details = EvaluationDetails(
        calibration=(CalibrationBin(num_rows=8, confidence=0.75, accuracy=0.5),), worst=tuple(worst)
    )
    ran(store, {**whole(store), "evaluate": detailed(store, evaluated(["blue", "red"], [[7, 1], [2, 6]]), details)})
    page = page_of(store)
    assert "Calibration" in page.text and "differ by 0.25 on average" in " ".join(page.text.split())
    assert "The rows that were answered worst" in page.text and "4.5" in page.text
    assert page.named("img") == [{"src": PIXEL, "alt": "row 3", "width": "56"}]
    assert page.named("script") == []

    store.write(layout.evaluation_details("r1"), b"{")
    assert "answered worst" not in page_of(store).text, "what is damaged is left out"


def test_residuals_of_a_regression_are_shown(store: Store):
    scale = (0.0, 1.0, 2.0)
    residuals = Residuals(histogram=Histogram(edges=(-1.5, 0, 1.5), counts=(3, 1)), scale=scale, cells=((3, 0), (1, 0)))
    report = evaluated([], []).model_copy(update={"metrics": {"rmse": 12.5}, "per_class": None, "confusion": None})
    ran(store, {**whole(store), "evaluate": detailed(store, report, EvaluationDetails(residuals=residuals))})
    page = page_of(store)
    assert "Residuals: predicted less true" in page.text and "-1.5" in page.text
    assert "Predicted across, true downward" in page.text and "Calibration" not in page.text


def test_a_run_that_failed_at_its_data_says_why_and_shows_what_was_asked(store: Store):
    ran(store, {}, fails_in="data")
    page = page_of(store)
    assert "Failed in data: 12 of 20 rows are bad" in " ".join(page.text.split())
    assert "train.epochs" in page.text and "Evaluation" not in page.text


def test_a_failure_that_a_resumed_run_overcame_is_no_failure(store: Store):
    ran(store, {}, fails_in="data")
    RunState(store, "r1", "flowers").save("data", {"n": "data"}, prepared(store))
    assert "Failed" not in page_of(store).text


def test_a_damaged_profile_costs_its_table_alone(store: Store):
    ran(store, whole(store))
    store.write(layout.profile("flowers", "v1"), b"{")
    page = page_of(store)
    assert "The profile of this dataset cannot be read." in page.text and "accuracy >= 0.9" in page.text


def test_names_from_data_are_text_and_nothing_else(store: Store):
    records = {**whole(store, HOSTILE), "evaluate": evaluated([HOSTILE, "</title>"], [[1, 1], [1, 1]])}
    ran(store, records)
    page = page_of(store)
    assert page.named("script") == [] and "<script>alert(1)</script>" in page.text
    raw = render(read_report(store, "r1"))
    assert b"<script" not in raw and b"\x00" not in raw and "\u202e".encode() not in raw


def test_warnings_of_the_data_are_shown_and_are_text_alone(store: Store):
    warned = DataWarning(kind="leak", columns=(HOSTILE,), text=f"column {HOSTILE} alone tells the target")
    ran(store, {"data": prepared(store, warnings=(warned,))})
    page = page_of(store)
    assert "Worth acting on" in page.text and "alone tells the target" in page.text and page.named("script") == []
    ran(store, {"data": prepared(store)})
    assert "Worth acting on" not in page_of(store).text


def test_passwords_of_addresses_are_left_out(store: Store):
    ran(store, {})
    assert b"secret" not in render(read_report(store, "r1"))


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(store: Store):
    ran(store, {**whole(store), "tune": searched(store, [1, 2], [0.5, 0.75])})
    page = page_of(store)
    assert {name for name, _ in page.tags} & {"script", "img", "iframe", "object", "embed", "base", "form"} == set()
    assert all(str(attrs["href"])[0] == "#" for attrs in page.named("a"))
    assert [attrs["href"] for attrs in page.named("link")] == ["data:,"]
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on") or key in ("src", "style")]


def test_the_page_can_be_used_without_seeing_it(store: Store):
    ran(store, {**whole(store), "tune": searched(store, [1, 2], [0.5, 0.75])})
    page = page_of(store)
    levels = [int(name[1]) for name, _ in page.tags if name in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.named("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for svg in page.named("svg"):
        assert svg["role"] == "img" and set(str(svg["aria-labelledby"]).split()) <= set(ids)
    assert {str(attrs["href"])[1:] for attrs in page.named("a")} <= set(ids)
    assert all(attrs.get("tabindex") == "0" for attrs in page.named("div") if attrs.get("class") == "scroll")


def test_a_wide_dataset_and_a_long_search_stay_below_two_megabytes(store: Store):
    tuned = searched(store, [n / 7 for n in range(2000)], [n / 2000 for n in range(2000)])
    histogram = Histogram(edges=tuple(range(51)), counts=(3,) * 50)
    columns = tuple(
        ColumnProfile(name=f"column_{n}", dtype="float64", count=10, nulls=0, histogram=histogram) for n in range(3000)
    )
    profile = DataProfile(name="flowers", version="v1", num_rows=10, columns=columns)
    write_document(store, str(tuned.dataset.profile_key), profile)
    ran(store, {"data": tuned.dataset, "tune": tuned})
    page = render(read_report(store, "r1"))
    assert 500_000 < len(page) <= 2_000_000
    assert f"{3000 - MAX_COLUMNS} more are in the profile".encode() in page
    assert b"the best 300 of 2000" in page


def test_page_tells_where_the_time_of_the_training_went(store: Store):
    ran(store, {"data": prepared(store), "train": trained()})
    assert b"goodput" not in render(read_report(store, "r1")), "of a training from before it was kept"
    told = Goodput(
        share=0.5, steps_s=2.0, starting_s=2.0, rows_s=0, validation_s=0, checkpoints_s=0, failures_s=0, packaging_s=0
    )

    ran(store, {"data": prepared(store), "train": trained().model_copy(update={"goodput": told})})

    assert f"<p>{told.text}.</p>".encode() in render(read_report(store, "r1"))


def test_time_goes_to_what_the_later_event_says():
    events = [
        {"time": 0.0, "stage": "ray", "text": "starting Ray"},
        {"time": 3.0, "stage": "data", "text": "starts"},
        {"time": 5.0, "stage": "data", "wall_s": 2.0},
        {"time": 5.0, "stage": "train", "text": "starts"},
        {"time": 9.0, "stage": "train", "event": "start"},
        {"time": 10.0, "stage": "train", "event": "epoch"},
        {"time": 100.0, "stage": "run", "text": "resumed"},
        {"time": 101.0, "stage": "train", "event": "start"},
        {"time": 105.0, "stage": "train", "event": "epoch"},
        {"time": 105.25, "stage": "train", "event": "goodput"},
        {"time": 105.5, "stage": "train", "wall_s": 4.5},
    ]
    assert time_shares(events) == {
        "starting Ray": 3.0,
        "stage data": 2.0,
        "starting workers": 5.0,
        "training steps": 5.0,
        "packaging the model": 0.5,
    }


def test_report_writes_into_the_run_and_names_the_file(store: Store):
    ran(store, whole(store))
    answer = runner.invoke(app, ["report", "r1", "--store", store.uri])
    assert answer.exit_code == 0 and answer.stdout.strip() == f"{store.uri}/runs/r1/report.html"
    assert Path(answer.stdout.strip()).read_bytes().startswith(b"<!DOCTYPE html>")


def test_report_out_leaves_the_run_as_it_is(store: Store, tmp_path: Path):
    ran(store, whole(store))
    out = tmp_path / "page.html"
    answer = runner.invoke(app, ["report", "r1", "--store", store.uri, "--out", str(out), "--json"])
    assert json.loads(answer.stdout) == {"run": "r1", "report": str(out), "size_bytes": out.stat().st_size}
    assert not store.exists(layout.report("r1"))


def test_report_of_a_run_that_is_not_there_says_what_lists_them(store: Store):
    ran(store, {})
    answer = runner.invoke(app, ["report", "r2", "--store", store.uri])
    assert answer.exit_code == 2 and "no run 'r2'" in answer.stderr and "raypipe runs" in answer.stderr


def test_report_out_that_cannot_be_written_says_so(store: Store, tmp_path: Path):
    ran(store, {})
    answer = runner.invoke(app, ["report", "r1", "--store", store.uri, "--out", str(tmp_path / "no" / "page.html")])
    assert answer.exit_code == 2 and "cannot be written" in answer.stderr


def test_a_report_is_no_part_of_what_a_run_left(store: Store):
    ran(store, whole(store))
    before = runner.invoke(app, ["runs", "r1", "--store", store.uri]).stdout
    write_report(store, "r1")
    assert runner.invoke(app, ["runs", "r1", "--store", store.uri]).stdout == before
