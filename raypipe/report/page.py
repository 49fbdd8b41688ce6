"""A report as one HTML file: no script, no request, readable in light and dark; everything from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from raypipe.pipeline.state import flat
from raypipe.records import (
    ColumnProfile,
    DataProfile,
    DatasetVersion,
    TrainResult,
)
from raypipe.report.cells import Table, shown
from raypipe.report.charts import Charts, figure
from raypipe.report.evaluation import evaluation_parts
from raypipe.report.read import RunReport, read_report
from raypipe.report.trials import trial_charts, trial_table
from raypipe.spec.metrics import main_metrics
from raypipe.storage import Store, layout

MAX_COLUMNS = 200
"""Rows of the table of columns; a wider dataset names how many are left out."""

MAX_EPOCHS = 200
"""Rows of the table of epochs: evenly thinned where there are more."""


def write_report(store: Store, run_id: str) -> tuple[str, bytes]:
    """Write a run's report into its folder, over an earlier one.

    Returns:
        Its key, and the page.
    Raises:
        SpecError: there is no such run.
        DocumentError, StoreError: the run cannot be read, or the store did not take the page.
    """
    page = render(read_report(store, run_id))
    key = layout.report(run_id)
    store.write(key, page)
    return key, page


def render(report: RunReport) -> bytes:
    """The page, in UTF-8."""
    charts = Charts()
    trained, tuned = report.trained, report.tuned
    text = _template().render(
        report=report,
        summary=report.history.summary,
        asked=_asked(report),
        splits=None if report.prepared is None else _splits(report),
        columns=None if report.profile is None else _columns(report.profile, charts),
        warnings=None if report.prepared is None else _warnings(report.prepared),
        expectations=None if report.profile is None else _expectations(report.profile),
        set_aside=Table("Reasons of the rows set aside", ("reason", "rows kept aside"), report.set_aside),
        curves=[] if trained is None else _curves(trained, charts),
        epochs=None if trained is None else _epochs(trained),
        trials=None if tuned is None else trial_table(tuned),
        trial_charts=[] if tuned is None else trial_charts(tuned, charts),
        **evaluation_parts(report.evaluation, report.details, charts),
        lineage=_lineage(report),
        stages=_stages(report),
        time_chart=charts.bars("Where the time went", report.time_shares, "s") if report.time_shares else "",
        steps_share=_steps_share(report.time_shares),
    )
    return text.encode("utf-8", "backslashreplace")


@lru_cache(maxsize=1)
def _template() -> Template:
    # A name may hold anything: autoescape is on for every file here, whatever its ending.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template("page.html.j2")


def _asked(report: RunReport) -> Table:
    values = flat(report.history.asked.get("spec", {}))
    return Table("Fields of the pipeline file, defaults filled in", ("field", "value"), list(values.items()))


def _splits(report: RunReport) -> Table:
    assert report.prepared is not None
    rows = [(name, split.num_rows, len(split.shards)) for name, split in report.prepared.splits.items()]
    return Table("Splits", ("split", "rows", "shards"), rows)


def _columns(profile: DataProfile, charts: Charts) -> Table:
    headers = ("column", "type", "missing", "distinct", "min", "mean", "max", "distribution or top values")
    rows = [_column(column, charts) for column in profile.columns[:MAX_COLUMNS]]
    left_out = len(profile.columns) - len(rows)
    more = f"; {left_out} more are in the profile" if left_out > 0 else ""
    return Table(f"Columns of {profile.num_rows} rows{more}", headers, rows)


def _column(column: ColumnProfile, charts: Charts) -> tuple[Any, ...]:
    missing = f"{column.nulls} ({column.nulls / column.count:.1%})" if column.count and column.nulls else "0"
    kind = column.dtype + (f" {list(column.shape)}" if column.shape else "")
    picture: Any = ", ".join(f"{top.value} ({top.count})" for top in column.top[:5])
    if column.histogram is not None and column.dtype not in ("bool", "string"):
        picture = charts.histogram(f"Histogram of {column.name}", column.histogram.edges, column.histogram.counts)
    return column.name, kind, missing, column.distinct, column.min, column.mean, column.max, picture


def _warnings(dataset: DatasetVersion) -> Table | None:
    rows = [(", ".join(each.columns), each.text) for each in dataset.warnings]
    return Table("Worth acting on before the next training", ("columns", "warning"), rows) if rows else None


def _expectations(profile: DataProfile) -> Table | None:
    rows = [
        (each.rule, ", ".join(each.columns), "holds" if each.passed else "broken", each.num_broken, each.detail)
        for each in profile.expectations
    ]
    headers = ("expectation", "columns", "outcome", "rows that break it", "detail")
    return Table("Expectations", headers, rows) if rows else None


def _curves(trained: TrainResult, charts: Charts) -> list[Markup]:
    names = list(dict.fromkeys(name for epoch in trained.history for name in epoch.metrics))
    losses = [name for name in names if name in ("train_loss", "val_loss")]
    others = main_metrics({name.removeprefix("val_"): 0.0 for name in names if name not in losses})
    groups = [("Losses by epoch", losses), *((f"val_{name} by epoch", [f"val_{name}"]) for name in others)]
    return [
        charts.lines(
            title,
            {
                name: [(epoch.epoch, epoch.metrics[name]) for epoch in trained.history if name in epoch.metrics]
                for name in group
            },
            "epoch",
            mark=trained.best_epoch,
        )
        for title, group in groups
        if group
    ]


def _epochs(trained: TrainResult) -> Table:
    names = list(dict.fromkeys(name for epoch in trained.history for name in epoch.metrics))
    every = -(-len(trained.history) // MAX_EPOCHS) or 1
    rows = [(each.epoch, each.step, *(each.metrics.get(name) for name in names)) for each in trained.history[::every]]
    return Table("Epochs" if every == 1 else f"Every {every}th epoch", ("epoch", "step", *names), rows)


def _lineage(report: RunReport) -> Table:
    asked, dataset, trained, version = report.history.asked, report.dataset, report.trained, report.version
    rows: list[tuple[str, Any]] = [("raypipe", asked.get("raypipe")), ("file", asked.get("file"))]
    rows += [("--set", override) for override in asked.get("overrides") or ()]
    if dataset is not None:
        rows += [
            ("dataset", layout.dataset(dataset.name, dataset.version)),
            ("content fingerprint", dataset.content_fingerprint),
        ]
        rows += [
            (
                f"shard {shard.key.rpartition('/')[0].rpartition('/')[2]}/{shard.key.rpartition('/')[2]} sha256",
                shard.sha256,
            )
            for split in dataset.splits.values()
            for shard in split.shards[:3]
        ]
    if trained is not None:
        rows += [
            ("artifact", trained.artifact.key),
            ("artifact digest", trained.artifact.digest),
            ("trained in run", trained.run_id),
            ("workers", ", then ".join(map(str, trained.workers_by_attempt or (trained.num_workers,)))),
            ("attempts", trained.attempts),
            ("parameters", trained.num_parameters),
        ]
    if version is not None:
        rows += [
            ("model version", f"{version.model}@{version.version}"),
            ("registered", version.created_at),
            ("registered by run", version.run_id),
        ]
    if report.endpoint is not None:
        rows.append(("endpoint", report.endpoint.url))
    return Table("Lineage", ("what", "which"), rows)


def _stages(report: RunReport) -> Table:
    rows = [(each.name, each.state, each.wall_s, each.left) for each in report.history.stages]
    return Table("Stages", ("stage", "state", "seconds", "left"), rows)


def _steps_share(shares: Mapping[str, float]) -> str:
    """The share of a run's wall time that went into training steps; empty for a run without any."""
    whole = sum(shares.values())
    steps = shares.get("training steps", 0.0)
    return f"{steps / whole:.0%} of {figure(whole)} s" if whole and steps else ""
