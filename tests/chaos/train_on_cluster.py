"""train() as the driver of a cluster that is there, in a process of its own, since a process joins one cluster only.

    python -m tests.chaos.train_on_cluster ADDRESS CODE STORE RUN TRAIN

TRAIN are settings of `train`, as JSON.  A line of JSON on stdout is one event, the last one the record; so whoever
reads them knows how far the work is.  An event `room` tells how many workers there is room for,
one `error` why the training failed.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray

from raypipe.errors import TrainingError
from raypipe.runtime import notices
from raypipe.runtime.context import RunContext
from raypipe.runtime.environment import put_on_path
from raypipe.runtime.progress import Progress
from raypipe.storage import open_store
from raypipe.train.stage import train
from tests.integration import faulty


def main() -> None:
    """See the module."""
    address, code, store_uri, run_id, settings = sys.argv[1:]
    code_dir, store = Path(code), open_store(store_uri)
    put_on_path(code_dir)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    progress = Progress(run_id, stream=None)
    progress.listeners.append(tell)
    post = notices.post

    def post_and_tell(name: str, room: str) -> None:
        post(name, room)
        tell({"event": "room", "room": int(room)})

    notices.post = post_and_tell
    spec = faulty.pipeline(code_dir, dropout_frac=0.0, **json.loads(settings))
    ctx = RunContext(run_id, store, progress, spec.name, code_dir=code_dir)
    try:
        print(train(spec, faulty.dataset(store), ctx).model_dump_json())
    except TrainingError as error:
        tell({"event": "error", "message": error.message})


def tell(event: Any) -> None:
    print(json.dumps(dict(event)), flush=True)


if __name__ == "__main__":
    main()
