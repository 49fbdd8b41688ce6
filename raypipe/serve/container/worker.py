"""One model process of a container: ModelApp under uvicorn on a Unix socket that HAProxy alone talks to.

python -m raypipe.serve.container.worker < its Work as JSON
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from pydantic import BaseModel

from raypipe.errors import RaypipeError
from raypipe.serve.app import ModelApp
from raypipe.serve.connection import Connection
from raypipe.serve.container.settings import PlatformPath
from raypipe.serve.direct import Direct

STAYS_OPEN_S = 3600
"""HAProxy decides when its connections end; one that we end could just be taking a request."""


class Work(BaseModel):
    """What a model process is told.

    Attributes:
        spec, model, store_uri, code_dir: as ModelApp takes them.
        paths: as in Settings.
        stop_timeout_s: longest time for requests that are under way when it is told to stop.
    """

    socket: Path
    spec: str
    model: str
    store_uri: str
    code_dir: str | None
    paths: tuple[PlatformPath, ...]
    stop_timeout_s: float


def make_app(work: Work) -> ModelApp:
    """The replica, answering at the platform's paths too.

    Raises:
        DigestMismatch, ArtifactError, ModelError: the model cannot be loaded here.
    """
    app = ModelApp(work.store_uri, work.model, work.code_dir, work.spec)
    for each in work.paths:
        app.routes.add_path(each.path, each.method, each.answered_as.replace("{model}", app.model.model))
    return app


def main() -> None:
    """Serve until SIGTERM, then answer what is under way; exit status 0."""
    work = Work.model_validate_json(sys.stdin.buffer.read())
    try:
        app = make_app(work)
    except RaypipeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    server = uvicorn.Server(
        uvicorn.Config(
            Direct(app),
            uds=str(work.socket),
            http=Connection,
            ws="none",
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_keep_alive=STAYS_OPEN_S,
            timeout_graceful_shutdown=max(1, int(work.stop_timeout_s)),
        )
    )
    server.run()


if __name__ == "__main__":
    main()
