"""The page of a run: the command that writes it, and the line that names it when a run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import AsJson, StoreUri
from raypipe.cli.output import reported, say, show, show_json
from raypipe.cli.runs import Run
from raypipe.errors import RaypipeError, SpecError, StoreAccessError, StoreError, masked

if TYPE_CHECKING:
    from raypipe.pipeline.api import Pipeline


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(report)


@reported
def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it here, not into the run's folder.")] = None,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that shows a run: data, curves, trials, metrics, gates, lineage, time."""
    from raypipe.report.page import render, write_report
    from raypipe.report.read import read_report
    from raypipe.storage import open_store

    opened = open_store(store)
    if out is None:
        key, page = write_report(opened, run)
        where = f"{opened.uri}/{key}"
    else:
        page, where = render(read_report(opened, run)), str(out)
        try:
            out.write_bytes(page)
        except OSError as error:
            raise SpecError(
                f"--out {out} cannot be written: {error.strerror}", "name a file in a folder of yours"
            ) from None
    if as_json:
        show_json({"run": run, "report": where, "size_bytes": len(page)})
    else:
        show(where)


def write_and_name(pipeline: Pipeline, run_id: str) -> str | None:
    """Write a run's page and say where it is. A page that cannot be written is told, and changes nothing else."""
    try:
        from raypipe.report.page import write_report

        store = pipeline.open_store()
        key, _ = write_report(store, run_id)
    except Exception as error:  # the run is what counts: nothing that stops its page may stop it
        say(f"no report: {masked(str(error)).splitlines()[0] if str(error) else type(error).__name__}")
        return None
    where = f"{store.uri}/{key}"
    fetch = f"; raypipe report {run_id} --store {store.uri} --out report.html fetches it"
    say(f"report: {where}{fetch if '://' in store.uri else ''}")
    return where


@contextmanager
def written_on_failure(pipeline: Pipeline, run_id: str | None) -> Iterator[str]:
    """The id for a run; where the run begins and fails, its page is written and named."""
    from raypipe.pipeline.state import read_run
    from raypipe.runtime.context import new_run_id

    named = run_id or new_run_id()
    try:
        yield named
    except Exception as error:
        is_store_away = isinstance(error, StoreError) and (error.transient or isinstance(error, StoreAccessError))
        if not is_store_away and not isinstance(error, BrokenPipeError):
            with suppress(RaypipeError):  # what failed is the error to tell, not that its run cannot be read
                if read_run(pipeline.open_store(), named) is not None:
                    write_and_name(pipeline, named)
        raise
