"""`raypipe init DIR`: a project that runs as it is."""

from __future__ import annotations

import re
import runpy
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import typer

from raypipe.cli.output import reported, show
from raypipe.errors import SpecError

Template = Literal["network", "tabular", "images", "text", "regression"]

SHARED = {"README.md": "README.md", ".gitignore": "gitignore"}
"""File of every project -> its template, which is no hidden file: packers leave those out."""

MAKE_DATA = "make_data.py"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(init)


@reported
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.", show_default=False)],
    template: Annotated[
        Template,
        typer.Option(help="What it is about; `network` is the same pictures as `images`, with a network of your own."),
    ] = "network",
) -> None:
    """Write a runnable project: pipeline.yaml, a request to send, README.md, .gitignore, and what else it needs."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(f"{folder} is there already and not an empty folder; nothing was written", "name a new folder")
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:63] or "project"
    templates = resources.files("raypipe.cli") / "template"
    files = {file.name: file for file in (templates / template).iterdir() if file.is_file()}
    files |= {file: templates / shared for file, shared in SHARED.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, source in files.items():
        text = source.read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("my-project", name), encoding="utf-8")
    if MAKE_DATA in files:
        runpy.run_path(str(folder / MAKE_DATA), run_name="__main__")
    show(f"{folder} holds {', '.join(sorted(path.name for path in folder.iterdir()))}")
    show(f"  raypipe run {folder}")
