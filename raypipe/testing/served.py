"""A model version without a pipeline run, and requests to a replica without Ray or a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import Response
from torch import nn

from raypipe.model.artifact import write_artifact
from raypipe.model.build import build_model
from raypipe.records import DatasetVersion, EvaluationReport, ModelVersion
from raypipe.serve.app import ModelApp
from raypipe.spec.model import MlpModel, Model
from raypipe.spec.serve import ServeSpec
from raypipe.storage import Store, layout

MLP = MlpModel(kind="mlp", hidden=[16])


def model_version(
    store: Store,
    dataset: DatasetVersion,
    *,
    name: str = "tiny",
    version: int = 1,
    spec: Model = MLP,
    code_dir: Path | None = None,
    module: nn.Module | None = None,
) -> ModelVersion:
    """A network on this dataset, packaged as a version of a model.

    Args:
        module: a trained one of `spec`; None: an untrained one, whose weights depend on the version.
    """
    if module is None:
        torch.manual_seed(version)
        module = build_model(spec, dataset.signature, dataset.feature_shape, code_dir, transforms=dataset.transforms)
    key = layout.model_artifact(name, f"{version:032d}")
    artifact = write_artifact(store, key, module, spec, dataset, code_dir=code_dir)
    return ModelVersion(
        model=name,
        version=version,
        artifact=artifact,
        signature=dataset.signature,
        run_id="rtest",
        dataset=dataset.version,
        metrics={},
        evaluation=EvaluationReport(artifact=artifact, dataset=dataset.version, num_rows=1, metrics={}),
        created_at="2026-01-01T00:00:00Z",
    )


def model_app(store: Store, model: ModelVersion, spec: ServeSpec | None = None) -> ModelApp:
    """A replica of it, in this process."""
    return ModelApp(store.uri, model.model_dump_json(), None, (spec or ServeSpec()).model_dump_json())


def ask(
    app: ModelApp,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] = b"",
    *,
    headers: dict[str, str] | None = None,
    root_path: str = "",
) -> Response:
    """One request.

    Args:
        body: several chunks arrive without a content-length, as a chunked upload does.
        headers: content-type is JSON unless given here.
        root_path: the application's route prefix; part of `path` as well, as ASGI servers have it.
    """
    return asyncio.run(app(request(method, path, body, headers=headers, root_path=root_path)))


def request(
    method: str,
    path: str,
    body: bytes | Iterable[bytes] = b"",
    *,
    headers: dict[str, str] | None = None,
    root_path: str = "",
) -> Request:
    """What an ASGI server hands over; see `ask`."""
    fields = {"content-type": "application/json"}
    chunks = [body] if isinstance(body, bytes) else list(body)
    if isinstance(body, bytes):
        fields["content-length"] = str(len(body))
    fields.update(headers or {})
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages[-1]["more_body"] = False
    arriving = iter(messages)

    async def receive() -> Any:
        return next(arriving, None) or await asyncio.Event().wait()  # the client stays

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
    }
    return Request(scope, receive)


@contextlib.contextmanager
def listening(app: Any, timeout_s: float = 30.0) -> Iterator[str]:
    """An ASGI application over HTTP on loopback while the block runs.

    Args:
        app: e.g. the `asgi` of a replica.
    Yields:
        Its address, without a trailing slash.
    Raises:
        TimeoutError: the server did not start in time.
    """
    import uvicorn

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, interface="asgi3", lifespan="off", ws="none", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + timeout_s
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise TimeoutError(f"no server listens after {timeout_s:g} s")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout_s)
