"""`raypipe init DIR`: a project that runs as it is."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.output import reported, show
from raypipe.errors import SpecError

FILES = {"pipeline.yaml": "pipeline.yaml", "model.py": "model.py", "README.md": "README.md", ".gitignore": "gitignore"}
"""File of a project -> its template, which is no hidden file: packers leave those out."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(init)


@reported
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.", show_default=False)]) -> None:
    """Write a runnable project: pipeline.yaml, model.py, README.md, .gitignore."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError(f"{folder} is there already and not an empty folder; nothing was written", "name a new folder")
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:63] or "project"
    templates = resources.files("raypipe.cli") / "template"
    folder.mkdir(parents=True, exist_ok=True)
    for file, template in FILES.items():
        text = (templates / template).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("my-project", name), encoding="utf-8")
    show(f"{folder} holds {', '.join(FILES)}")
    show(f"  raypipe run {folder}")
