"""raypipe: one file takes a dataset to an autoscaling endpoint."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import raypipe
from raypipe.cli import doctor, jobs, keeping, keys, models, project, reports, runs, serving
from raypipe.cli.options import PIPELINE, Allow, AsJson, File, Fresh, RunId, Sets, StoreUri
from raypipe.cli.output import reported, say, show, show_json, show_table, terminate
from raypipe.errors import masked, one_line

if TYPE_CHECKING:
    from raypipe.pipeline.api import Pipeline, RunResult
    from raypipe.pipeline.plan import Step

UsageError: Any = typer.BadParameter.__mro__[1]  # typer carries click along in some versions, and names it nowhere


class _Words(TyperGroup):
    """The commands. What is wrong with their words is told without a password out of an address, and without harm."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _told_plainly():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _told_plainly():
            return super().invoke(ctx)


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        text = one_line(masked(error.format_message()))
        error.format_message = lambda: text
        raise


app = typer.Typer(
    name="raypipe",
    cls=_Words,
    help="One file takes a dataset to an autoscaling endpoint, on a laptop or on a Ray cluster.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"raypipe {raypipe.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


project.add_to(app)


@app.command()
@reported
def validate(file: File = PIPELINE, sets: Sets = None, allow: Allow = None, as_json: AsJson = False) -> None:
    """Check a pipeline file; starts nothing."""
    from raypipe.spec.advice import advice
    from raypipe.spec.files import check_files
    from raypipe.spec.load import load_pipeline

    checked = load_pipeline(file, sets or ())
    check_files(checked)
    warnings = advice(checked.spec)
    for text in warnings:
        say(f"warning: {text}")
    if as_json:
        spec = checked.spec.model_dump(mode="json")
        show_json({"valid": True, "file": str(file), "warnings": warnings, "spec": spec})
    else:
        show(f"{file}: valid, pipeline '{checked.spec.name}'")


@app.command()
@reported
def plan(
    file: File = PIPELINE,
    sets: Sets = None,
    store: StoreUri = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Plan the rest of this run.")] = None,
    fresh: Fresh = False,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Show which stages would run or be reused, with the reason for each."""
    from raypipe.pipeline.api import Pipeline

    pipeline = Pipeline.load(file, sets or (), store)
    steps = pipeline.plan(resume=resume, fresh=fresh)
    for text in pipeline.advice(steps):
        say(f"warning: {text}")
    if as_json:
        show_json([_step_document(step) for step in steps])
        return
    show_table(("stage", "decision"), [(step.name, step.text) for step in steps])


def _step_document(step: Step) -> dict[str, Any]:
    unfinished = None if step.unfinished is None else {"run": step.unfinished.run_id, "resume": step.unfinished.resume}
    return {"stage": step.name, "reuse": step.reuse, "reason": step.reason, "unfinished": unfinished}


@app.command()
@reported
def run(
    file: File = PIPELINE,
    sets: Sets = None,
    store: StoreUri = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to do.")] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End when the pipeline ends; do not keep serving.")
    ] = False,
    fresh: Fresh = False,
    run_id: RunId = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline from its dataset to its endpoint, using what earlier runs left from the same inputs."""
    from raypipe.pipeline.api import Pipeline

    pipeline = Pipeline.load(file, sets or (), store)
    with reports.written_on_failure(pipeline, resume or run_id) as named:
        pipeline.run(
            resume=resume,
            until=until,
            wait=not no_wait,
            fresh=fresh,
            run_id=named,
            on_done=lambda result: _show_result(pipeline, result, as_json=as_json, stays=not no_wait),
        )


def _show_result(pipeline: Pipeline, result: RunResult, *, as_json: bool, stays: bool = False) -> None:
    from raypipe.cli.columns import show_columns
    from raypipe.cli.summary import document, show_run

    told = document(result)
    if as_json:
        show_json({**told, "report": reports.write_and_name(pipeline, result.run_id)})
    else:
        show_run(told)
        if list(result.records) == ["data"]:
            show_columns(pipeline.open_store(), result.records["data"])
        reports.write_and_name(pipeline, result.run_id)
    if result.endpoint is None:
        return
    if result.endpoint_stays:
        say(f"it stays up; raypipe stop {result.endpoint.name} ends it")
    elif stays:
        say("serving; Ctrl-C stops it")


def _add_stage(name: str, what: str) -> None:
    def command(
        file: File = PIPELINE,
        sets: Sets = None,
        store: StoreUri = None,
        run_id: RunId = None,
        fresh: Fresh = False,
        allow: Allow = None,
        as_json: AsJson = False,
    ) -> None:
        from raypipe.pipeline.api import Pipeline

        pipeline = Pipeline.load(file, sets or (), store)
        with reports.written_on_failure(pipeline, run_id) as named:
            pipeline.run(
                only=name,
                run_id=named,
                fresh=fresh,
                on_done=lambda result: _show_result(pipeline, result, as_json=as_json),
            )

    app.command(name, help=f"{what} One stage alone, from what earlier stages left.")(reported(command))


for _name, _what in {
    "data": "Read, check, split and store the dataset.",
    "train": "Train the model.",
    "tune": "Search hyperparameters.",
    "evaluate": "Score the model on the test split and judge it.",
    "register": "Give the model its version, if its gates hold.",
}.items():
    _add_stage(_name, _what)

jobs.add_to(app)
serving.add_to(app)
keys.add_to(app)
models.add_to(app)
runs.add_to(app)
reports.add_to(app)
doctor.add_to(app)
keeping.add_to(app)


@app.command()
@reported
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors."""
    from raypipe.spec.schema import json_schema

    show_json(json_schema())


def main() -> None:
    """Entry point of `raypipe` and `python -m raypipe`."""
    signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no reason to fail
    sys.exit(app())
