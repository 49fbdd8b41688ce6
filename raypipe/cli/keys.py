"""`raypipe key`: an API key, told once, and the line by which an endpoint knows it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.options import AsJson
from raypipe.cli.output import reported, show, show_json
from raypipe.errors import SpecError


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(key)


@reported
def key(
    name: Annotated[str, typer.Argument(help="Who holds it.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="predict or admin; repeatable. Else predict.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second that each replica answers.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once that the rate does not hold up.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Add the line there; made for this user alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown once; an endpoint keeps its digest only (serve.auth)."""
    from pydantic import ValidationError

    from raypipe.serve.keys import line_of, new_key

    made = new_key()
    try:
        line = line_of(made, name, scope or ["predict"], rate, burst)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = str(first["loc"][0])
        option = "NAME" if place == "name" else "--" + place.removesuffix("s")
        raise SpecError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None
    if file is not None:
        _append(file, line)
    if as_json:
        show_json({"key": made, "line": json.loads(line), "file": None if file is None else str(file)})
        return
    show(f"key   {made}")
    if file is None:
        show(f"line  {line}")
        show("the key is not shown again; the line goes to serve.auth.keys_file, or the variable of keys_env")
    else:
        show(f"its line is in {file}; the key is not shown again")


def _append(file: Path, line: str) -> None:
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as opened:
            before = opened.read()
            if before.lstrip().startswith(b"["):
                raise SpecError(f"--file: {file} is a JSON list; a line cannot be added to it", "leave --file out")
            separator = b"" if before.endswith(b"\n") or not before else b"\n"
            opened.write(separator + line.encode() + b"\n")
    except OSError as error:
        raise SpecError(f"--file: {file} cannot be written: {error.strerror}") from None
