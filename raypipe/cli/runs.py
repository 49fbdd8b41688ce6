"""Commands that look back at runs: runs, logs, compare."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from raypipe.cli.options import AsJson, StoreUri
from raypipe.cli.output import number, reported, show, show_json, show_table
from raypipe.errors import SpecError

Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `raypipe runs` lists them.")]

MAX_VALUE_CHARS = 60
"""Of one value in a table; `--json` has all of it."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (runs, logs, compare):
        app.command()(command)


@reported
def runs(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show this run with its stages.")] = None,
    pipeline: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this pipeline.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest runs to list.")] = 20,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first; or one run with its stages and how to go on with it."""
    from raypipe.pipeline.history import list_runs, read_history
    from raypipe.storage import open_store

    opened = open_store(store)
    if run is not None:
        _show_run(read_history(opened, run), as_json)
        return
    listed = list_runs(opened, pipeline)
    if as_json:
        show_json([each.document() for each in listed[:limit]])
    elif listed:
        headers = ("run", "pipeline", "started", "took", "state", "metric", "model")
        show_table(headers, [_cells(each) for each in listed[:limit]])
        if len(listed) > limit:
            show(f"and {len(listed) - limit} older; --limit shows more")
    else:
        show(f"no run{f' of {pipeline}' if pipeline else ''} in {opened.uri}")


def _cells(run: Any) -> tuple[Any, ...]:
    metric = f"{run.metric[0]} {number(run.metric[1])}" if run.metric else ""
    started = run.started_at[:19].replace("T", " ")
    return run.run_id, run.pipeline, started, duration(run.wall_s), run.state, metric, run.model


def duration(seconds: float | None) -> str:
    """`4.2s`, `3m07s` or `2h05m`."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _show_run(history: Any, as_json: bool) -> None:
    summary = history.summary
    if as_json:
        stages = [vars(stage) for stage in history.stages]
        goodput = None if history.goodput is None else history.goodput.model_dump(mode="json")
        more = {"stages": stages, "goodput": goodput, "resume": history.resume, "asked": history.asked}
        show_json({**summary.document(), **more})
        return
    show(f"run {summary.run_id} of {summary.pipeline}: {summary.state}, {_when(summary)}")
    show(f"  file      {history.asked.get('file')}")
    for override in history.asked.get("overrides") or ():
        show(f"  --set     {override}")
    for stage in history.stages:
        spent = duration(stage.wall_s) if stage.state == "done" else stage.state
        show(f"  {stage.name:<9} {spent:>8}  {stage.left}")
    if history.goodput is not None:
        show(f"  {history.goodput.text}")
    if summary.metric:
        show(f"  {summary.metric[0]} {number(summary.metric[1])}")
    if history.resume and summary.state != "running":
        show(f"  {history.resume}   goes on with it")


def _when(summary: Any) -> str:
    took = f", {duration(summary.wall_s)}" if summary.wall_s is not None else ""
    return f"started {summary.started_at[:19].replace('T', ' ')} UTC{took}"


@reported
def logs(run: Run, store: StoreUri = None, as_json: AsJson = False) -> None:
    """Print what a run said, again; with --json one event a line, with all its fields."""
    from raypipe.pipeline.history import read_history
    from raypipe.runtime.progress import read_events
    from raypipe.storage import open_store

    opened = open_store(store)
    events = read_events(opened, run)
    if not events:
        read_history(opened, run)  # says so where there is no such run
    for event in events:
        if as_json:
            show_json(event)
            continue
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("time", 0)))
        show(f"{clock} {event.get('stage', ''):<9} {event.get('text', '')}")


@reported
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Runs, of one pipeline or of several.")],
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between runs: metrics side by side, dataset, fields of the pipeline file."""
    from raypipe.pipeline.history import compare_runs
    from raypipe.storage import open_store

    if len(runs) < 2:
        raise SpecError("compare: found one run; it takes at least two", "raypipe runs lists them")
    rows = compare_runs(open_store(store), runs)
    if as_json:
        show_json({"runs": runs, "differences": dict(rows)})
    elif rows:
        show_table(("", *runs), [(name, *map(_short, values)) for name, values in rows])
    else:
        show("no difference")


def _short(value: Any) -> str:
    text = "" if value is None else number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."
