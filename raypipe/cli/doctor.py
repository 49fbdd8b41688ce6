"""`raypipe doctor`: what stands between this machine and a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.options import AsJson, StoreUri
from raypipe.cli.output import reported, show, show_json


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(doctor)


@reported
def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="Look at the store and the port of this pipeline file.", show_default=False)
    ] = None,
    address: Annotated[str | None, typer.Option(help="A cluster's head, host:port; else $RAY_ADDRESS.")] = None,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Say what this machine, its store and its cluster lack for a run, each with what to do; starts nothing.

    Ends with exit code 4 where a run could not end well.
    """
    from raypipe.pipeline.checkup import check_up
    from raypipe.spec.load import load_pipeline
    from raypipe.spec.serve import ServeSpec

    spec = None if file is None else load_pipeline(file).spec
    endpoint = (spec.serve if spec is not None else None) or ServeSpec()
    uri = store or (None if spec is None else spec.store)
    findings = []
    for finding in check_up(uri, address or os.environ.get("RAY_ADDRESS"), endpoint.host, endpoint.port):
        findings.append(finding)
        if not as_json:  # at once: a store that does not answer is waited for
            show(f"{finding.state:<8} {finding.what:<16} {finding.text}")
            if finding.remedy:
                show(f"  try: {finding.remedy}")
    if as_json:
        show_json([finding.document() for finding in findings])
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(4)
