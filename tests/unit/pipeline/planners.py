"""The plan of a project's run; without the tests' imports, of which Ray takes most of a driver's start."""

from __future__ import annotations

from pathlib import Path

from raypipe.pipeline.plan import Planner
from raypipe.pipeline.state import RunState
from raypipe.spec.load import load_pipeline
from raypipe.storage import open_store


def planned(folder: Path, *sets: str, run_id: str = "rnew") -> Planner:
    spec = load_pipeline(folder / "pipeline.yaml", sets).spec
    store = open_store(str(folder / "store"))
    return Planner(spec=spec, store=store, state=RunState(store, run_id, spec.name), code_dir=folder)
