"""One replica of raypipe without Ray, for uvicorn; `POST /batching` gives it another batcher.

The file that RAYPIPE_BENCH_REPLICA names holds `store`, `model`, `code_dir` and `spec`, as ModelApp takes them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from raypipe.serve.app import ModelApp
from raypipe.serve.batching import Batcher
from raypipe.spec.serve import BatchingSpec

replica = ModelApp(**json.loads(Path(os.environ["RAYPIPE_BENCH_REPLICA"]).read_text()))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Requests are the replica's, but for the one path."""
    if scope["path"] != "/batching":
        await replica.asgi(scope, receive, send)
        return
    spec = BatchingSpec.model_validate_json((await receive())["body"])
    replica._batcher = Batcher(replica.predictor.answer, spec, replica.spec.request_timeout_s)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
