"""`raypipe init`: a project that runs as it is, from a template or for data of your own."""

from __future__ import annotations

import json
import re
import runpy
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypipe.cli.output import reported, say, show
from raypipe.errors import SpecError

Template = Literal["network", "tabular", "images", "text", "regression"]

SHARED = {"README.md": "README.md", ".gitignore": "gitignore"}
"""File of every project -> its template, which is no hidden file: packers leave those out."""

MAKE_DATA = "make_data.py"

TEMPLATES = resources.files("raypipe.cli") / "template"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(init)


@reported
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder to make; with --from, NAME-project if unset.", show_default=False),
    ] = None,
    template: Annotated[
        Template | None,
        typer.Option(
            help="What it is about; `network`, which it is if unset, is the same pictures as `images`, with a network "
            "of your own.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATA",
            help="Your own data: a table, a folder of pictures or of recordings with a folder a class, or a text.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What to predict of a table; guessed if unset. With --from.")
    ] = None,
) -> None:
    """Write a runnable project: pipeline.yaml, a request to send, README.md, .gitignore, and what else it needs."""
    if data is not None and template is not None:
        raise SpecError("init: found --from and --template; a project is about one of them", "leave one of them out")
    if target is not None and data is None:
        raise SpecError("init: --target names a column of the data that --from names; there is no --from")
    if folder is None:
        if data is None:
            raise SpecError("init: found no folder to make", "name it: raypipe init DIR, or raypipe init --from DATA")
        folder = Path(f"{_stem(data)}-project")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(f"{folder} is there already and not an empty folder; nothing was written", "name a new folder")
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:63] or "project"
    if data is None:
        _write_template(folder, template or "network", name)
    else:
        _write_draft(folder, data, name, target)
    show(f"{folder} holds {', '.join(sorted(path.name for path in folder.iterdir()))}")
    show(f"  raypipe run {folder}")


def _write_template(folder: Path, template: Template, name: str) -> None:
    files = {file.name: file for file in (TEMPLATES / template).iterdir() if file.is_file()}
    _write(folder, name, {file: _named(source.read_text(encoding="utf-8"), name) for file, source in files.items()})
    if MAKE_DATA in files:
        runpy.run_path(str(folder / MAKE_DATA), run_name="__main__")


def _write_draft(folder: Path, data: str, name: str, target: str | None) -> None:
    from raypipe.draft.stage import draft

    made = draft(data, str(folder), name, target)
    _write(folder, name, {"pipeline.yaml": made.pipeline, "request.json": json.dumps(made.request) + "\n"})
    if made.guesses:
        say(f"guessed: {', '.join(made.guesses)}; the comments in {folder / 'pipeline.yaml'} say what from")


def _write(folder: Path, name: str, texts: dict[str, str]) -> None:
    """Write a project's own files, and those that every project has."""
    shared = {file: _named((TEMPLATES / source).read_text(encoding="utf-8"), name) for file, source in SHARED.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in {**texts, **shared}.items():
        (folder / file).write_text(text, encoding="utf-8")


def _named(template: str, name: str) -> str:
    """A template with the project's name in it."""
    return template.replace("my-project", name)


def _stem(data: str) -> str:
    """`iris` of `s3://bucket/iris.csv.gz`."""
    last = data.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last.partition(".")[0]).strip("-") or "data"
