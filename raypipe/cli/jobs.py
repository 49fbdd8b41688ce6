"""`raypipe submit`: the same run as a Ray job on a cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import Annotated, Any

import typer

from raypipe.cli.options import PIPELINE, Allow, AsJson, File, Fresh, Sets, StoreUri
from raypipe.cli.output import reported, say, show_json
from raypipe.errors import SpecError

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Ray colours its lines in a job's log; they are not worth an escape each."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(submit)


@reported
def submit(
    address: Annotated[str, typer.Option(help="The cluster's dashboard, e.g. http://head:8265.", show_default=False)],
    file: File = PIPELINE,
    sets: Sets = None,
    store: StoreUri = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to do.")] = None,
    fresh: Fresh = False,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Pass this variable of yours on; everyone who sees the cluster's dashboard sees it."
        ),
    ] = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline as a Ray job: streams its log, ends with its exit code. An endpoint stays on the cluster."""
    from raypipe.pipeline.plan import check_step
    from raypipe.runtime.jobs import follow
    from raypipe.runtime.jobs import submit as submit_job
    from raypipe.runtime.reach import lasting
    from raypipe.spec.load import load_pipeline

    checked = load_pipeline(file, sets or ())
    if until is not None:
        check_step(until, checked.spec, "--until")
    where = lasting(store or checked.spec.store)
    words = ["python", "-m", "raypipe", "run", checked.path.name, "--store", where, "--no-wait", "--json"]
    words += [word for text in checked.overrides for word in ("--set", text)]
    for option, value in (("--resume", resume), ("--until", until)):
        words += [option, value] if value else []
    words += ["--fresh"] if fresh else []
    variables = {name: _variable(name) for name in env or ()}
    metadata = {"pipeline": checked.spec.name}
    job = submit_job(address, shlex.join(words), code_dir=checked.code_dir, env=variables, metadata=metadata)
    say(f"job {job.job_id} on {address}; its log follows, Ctrl-C leaves it running")
    log = _Log()
    try:
        code = follow(job, log.line)
    except KeyboardInterrupt:
        say(f"the job goes on; stop it with: {job.stop_command}")
        raise
    _show_end(log.result, as_json)
    raise typer.Exit(code)


class _Log:
    """A job's log is its stdout and stderr in one: the result is the JSON document of a run, the rest is told."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None

    def line(self, text: str) -> None:
        """Take one line."""
        result = _document(text)
        if result is None:
            say(COLOURS.sub("", text))
        else:
            self.result = result


def _document(line: str) -> dict[str, Any] | None:
    """What `raypipe run --json` ends with, a run or its error; None for any other line, JSON or not."""
    try:
        value = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return None
    error = value.get("error")
    is_end = {"run", "stages"} <= value.keys() or (isinstance(error, dict) and {"kind", "exit_code"} <= error.keys())
    return value if is_end else None


def _show_end(result: dict[str, Any] | None, as_json: bool) -> None:
    from raypipe.cli.summary import show_run

    if result is None:
        return
    if as_json:
        show_json(result)
    elif "run" in result:
        show_run(result)


def _variable(name: str) -> str:
    if "=" in name or name not in os.environ:
        raise SpecError(f"--env {name}: no such variable here", "export it first; its value is taken from there")
    return os.environ[name]
