"""One replica of raypipe with the HTTP server it has under Ray, and without Ray: PORT FILE.

The file holds `store_uri`, `model`, `code_dir` and `spec`, as ModelApp takes them. `POST /batching` gives the replica
another batcher, so that settings can be tried without a new process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

from raypipe.serve.app import ModelApp
from raypipe.serve.batching import Batcher
from raypipe.serve.direct import Direct, start_server
from raypipe.spec.serve import BatchingSpec


class Replica(Direct):
    """What a replica's connections ask, and the path by which its batcher is set."""

    def takes(self, path: str) -> bool:
        return path != "/batching"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/batching":
            await self._set_batching((await receive())["body"], send)
        else:
            await super().__call__(scope, receive, send)

    async def _set_batching(self, body: bytes, send: Any) -> None:
        spec = BatchingSpec.model_validate_json(body)
        self.app._batcher = Batcher(self.app.predictor.answer, spec, self.app.spec.request_timeout_s)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def serve(port: int, described: Path) -> None:
    """Until it is told to end."""
    replica = Replica(ModelApp(**json.loads(described.read_text())))
    options = SimpleNamespace(host="127.0.0.1", port=port, keep_alive_timeout_s=90)
    task, _ = start_server(replica, options, asyncio.get_running_loop())
    await task


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
