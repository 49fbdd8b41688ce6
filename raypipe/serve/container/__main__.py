"""`python -m raypipe.serve.container [serve]`: what the image starts. Variables say all that it does; see settings.py.

SageMaker gives the argument `serve`, which changes nothing; `health` asks the container that runs beside it whether it
answers, as Docker's HEALTHCHECK does.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from raypipe.errors import RaypipeError, ServeError, SpecError, one_line
from raypipe.serve.container.chosen import chosen_version, open_model_store
from raypipe.serve.container.settings import HEALTH_PATH, Settings, read_settings
from raypipe.serve.container.supervisor import Container, reached_at
from raypipe.serve.ingress import check_port_free

HEALTH_TIMEOUT_S = 5.0


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until told to stop.

    Returns:
        The exit status: 0, or that of the error that is told on stderr.
    """
    try:
        if list(arguments) not in ([], ["serve"], ["health"]):
            raise SpecError(f"found the arguments {' '.join(arguments)[:80]!r}; must be one word: serve, or health")
        settings = read_settings(environ)
        if list(arguments) == ["health"]:
            _check_health(settings)
            return 0
        check_port_free(settings.spec.host, settings.spec.port)
        store = open_model_store(settings.store_uri)
        Container(settings, chosen_version(store, settings.reference), store.uri).run()
    except RaypipeError as error:
        print(f"error: {one_line(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  try: {one_line(error.hint)}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _check_health(settings: Settings) -> None:
    """Raises ServeError where the container does not say that it is healthy."""
    spec = settings.spec
    client = http.client.HTTPConnection(reached_at(spec.host), spec.port, timeout=HEALTH_TIMEOUT_S)
    try:
        client.request("GET", HEALTH_PATH)
        status = client.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise ServeError(f"port {spec.port} does not answer: {type(error).__name__}") from None
    finally:
        client.close()
    if status != HTTPStatus.OK:
        raise ServeError(f"port {spec.port} answers {HEALTH_PATH} with HTTP {status}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
