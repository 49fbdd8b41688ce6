"""`python -m raypipe.serve.container [serve]`: what the image starts. Variables say all that it does; see settings.py.

SageMaker gives the argument `serve`; it changes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from raypipe.errors import RaypipeError, SpecError, one_line
from raypipe.serve.container.chosen import chosen_version, open_model_store
from raypipe.serve.container.settings import read_settings
from raypipe.serve.container.supervisor import Container
from raypipe.serve.ingress import check_port_free


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until told to stop.

    Returns:
        The exit status: 0, or that of the error that is told on stderr.
    """
    try:
        if list(arguments) not in ([], ["serve"]):
            raise SpecError(f"found the arguments {' '.join(arguments)[:80]!r}; the only word is: serve")
        settings = read_settings(environ)
        check_port_free(settings.spec.host, settings.spec.port)
        store = open_model_store(settings.store_uri)
        Container(settings, chosen_version(store, settings.reference), store.uri).run()
    except RaypipeError as error:
        print(f"error: {one_line(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  try: {one_line(error.hint)}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
