"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PIPELINE = Path("pipeline.yaml")
"""The file that is meant where none is named."""


def _pipeline_file(path: Path) -> Path:
    inside = path / PIPELINE
    return inside if path.is_dir() and inside.is_file() else path


File = Annotated[
    Path,
    typer.Argument(
        help="The pipeline file, or the folder of a pipeline.yaml; else pipeline.yaml here.",
        callback=_pipeline_file,
        show_default=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, e.g. train.epochs=3; repeatable."),
]
StoreUri = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URI", help="A folder or s3://bucket/prefix; else the file's, $RAYPIPE_STORE, .raypipe."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Run to work in; made if new.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Use nothing that earlier runs left.")]
Reference = Annotated[str, typer.Argument(help="MODEL, MODEL@ALIAS or MODEL@VERSION.", show_default=False)]
Code = Annotated[
    Path | None,
    typer.Option(
        "--code",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Folder that holds the model's own module (model.kind: import).",
    ),
]


def _allowed(names: list[str] | None) -> list[str] | None:
    from raypipe.spec.code import allow_modules

    if names:
        allow_modules(names)
    return names


Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-module",
        metavar="NAME",
        callback=_allowed,
        help="Installed module that model.path may name; repeatable, or $RAYPIPE_ALLOW_MODULES.",
    ),
]
"""Takes effect as it is read: in this process and those it starts. Never taken from a store."""
