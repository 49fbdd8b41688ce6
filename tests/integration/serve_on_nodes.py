"""A driver that serves on a cluster: one line of words in, one JSON line out; `test_serve_nodes` starts it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from raypipe.errors import RaypipeError
from raypipe.pipeline.demand import serve_demand
from raypipe.records import ModelVersion
from raypipe.runtime.connect import connect
from raypipe.serve import stage
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context


def main(address: str, store: str, version: str) -> None:
    """Do what each line says: `deploy SPEC`, `status` or `stop`; an error is told as {"error": ...}."""
    ctx, model = run_context(open_store(store)), ModelVersion.model_validate_json(version)

    def deploy(spec: str) -> Any:
        rows = [{"x": 1.0}, {"x": 2.0}]
        return stage.deploy(ServeSpec.model_validate_json(spec), model, ctx, probe_rows=rows).model_dump(mode="json")

    words: dict[str, Callable[..., Any]] = {"deploy": deploy, "status": stage.status, "stop": stage.stop}
    with connect(serve_demand(ServeSpec()), address=address):
        for line in sys.stdin:
            word, *rest = line.rstrip("\n").split(" ", 1)
            try:
                answer = words[word](*rest)
            except RaypipeError as error:
                answer = {"error": str(error)}
            print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
