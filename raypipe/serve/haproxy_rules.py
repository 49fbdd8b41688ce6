"""What HAProxy does beyond what Ray has it do: who may connect how often, how long, with how large a header, over TLS;
and its own refusals in JSON, with the status they have.

Written as HAProxy's configuration; haproxy_launcher.py merges it into Ray's file whenever HAProxy starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path

from raypipe.serve import certificate
from raypipe.serve.client_header import CLIENT
from raypipe.serve.statuses import CODES
from raypipe.spec.serve import ServeSpec

RULES = "rules.cfg"
"""Of HAProxy's private folder, as are the files it names."""

CLIENTS = "raypipe_clients"
"""The section that counts connections by address."""

MAX_CLIENTS = 100_000
"""Addresses that are counted at once."""

H2_STREAMS = 32
"""Requests at once on one HTTP/2 connection. Each may hold a buffer, and one client has many connections."""

MAX_BUFFERS = 2048
"""Of HAProxy's, each of ingress.BUFFER_BYTES: beyond them requests wait for one, so that its memory ends at a quarter
of a GiB whatever clients send."""

H2_GLITCHES = 100
"""Oddities of an HTTP/2 connection, e.g. streams begun only to be reset, or empty frames, after which it is closed."""

TELL_CLIENT = f"http-request set-header {CLIENT.decode()} %[src]:%[src_port]"
"""The connection of a client, in place of what it may say itself; connections to replicas are shared by all."""

RETRY_AFTER = "retry-after: 1\r\n"
KEY_WANTED = "www-authenticate: Bearer\r\n"

Refusal = tuple[str, str, str]
"""Message, hint, more header lines."""

REFUSALS: dict[int, Refusal] = {
    400: ("the request is not as HTTP wants it, or did not come whole", "send a whole HTTP/1.1 or HTTP/2 request", ""),
    401: (
        "this endpoint asks for an API key",
        "send the header authorization: Bearer KEY, or x-api-key: KEY",
        KEY_WANTED,
    ),
    403: ("the request is not allowed", "see the endpoint's documentation", ""),
    404: ("nothing is served at this path", "ask below the endpoint's own URL: raypipe status", ""),
    408: ("the request did not arrive in time", "send it faster", ""),
    413: ("the request body is too large", "send fewer rows per request", ""),
    429: (
        "this address has too many connections open",
        "use fewer, or have serve.limits.max_connections_per_client raised",
        RETRY_AFTER + "connection: close\r\n",
    ),
    431: ("the request's header is too large", "send fewer or shorter header lines", ""),
    500: ("the endpoint could not answer", "ask again", ""),
    502: ("a replica broke its answer off", "ask again", RETRY_AFTER),
    503: ("no replica can answer now", "ask again after the seconds that Retry-After says", RETRY_AFTER),
    504: ("no replica answered in time", "ask again later, or send fewer rows per request", RETRY_AFTER),
}
"""What HAProxy says itself, by status."""

NO_LOG = "no log"
"""No line a request in the system's log: writing it takes a tenth of HAProxy's time for a request (measured), replicas
count and time the same requests, and HAProxy's statistics count what it refuses. Replicas that come and go are still
logged."""

CODE_OF = {**CODES, 502: "unavailable", 503: "unavailable"}

ERRORFILES = (400, 403, 408, 413, 429, 500, 502, 503, 504)
"""Statuses that HAProxy answers with by its own decision."""


def write_rules(spec: ServeSpec, folder: Path) -> Path:
    """Write the rules, and the answers they name, to HAProxy's private folder.

    Returns:
        The file of rules.
    Raises:
        ServeError: the certificate cannot be served with.
    """
    write_answers(folder)
    certificate.forget_bundle(folder)
    if spec.tls is not None:
        certificate.write_bundle(spec.tls, folder)
    path = folder / RULES
    path.write_text(rules(spec, folder), encoding="utf-8")
    return path


def write_answers(folder: Path) -> None:
    """What HAProxy says itself, each in a file."""
    for status in REFUSALS:
        (folder / f"answer-{status}.http").write_bytes(answer_of(status))


def rules(spec: ServeSpec, folder: Path) -> str:
    """Sections and their lines, as haproxy_launcher.merged reads them."""
    most = spec.limits.max_connections_per_client
    return f"""\
global
{_lines(global_rules(spec))}
defaults
    option idle-close-on-response
{_lines(default_rules(spec, folder))}
frontend http_frontend
    bind {_bind(spec, folder, "h2,http/1.1")}
    {NO_LOG}
    tcp-request connection track-sc0 src table {CLIENTS}
    tcp-request connection reject if {{ sc0_conn_cur gt {2 * most} }}
    http-request return errorfile {folder}/answer-429.http if {{ sc0_conn_cur gt {most} }}
{_lines(_closed_paths(spec, folder))}
{_lines(request_rules(spec, folder))}
frontend grpc_frontend
    bind {_bind(spec, folder, "h2")}
    {NO_LOG}
    tcp-request connection track-sc0 src table {CLIENTS}
    tcp-request connection reject if {{ sc0_conn_cur gt {2 * most} }}
    {TELL_CLIENT}
backend default_backend
    http-request return errorfile {folder}/answer-404.http
backend {CLIENTS}
    stick-table type ipv6 size {MAX_CLIENTS} expire 1m store conn_cur
"""


def global_rules(spec: ServeSpec) -> list[str]:
    """What one connection may hold, and all together. HTTP/2 needs no TLS: clients may begin with it."""
    return [
        f"tune.http.maxhdr {2 * spec.limits.max_headers + 1}",
        f"tune.buffers.limit {MAX_BUFFERS}",
        f"tune.h2.fe.max-concurrent-streams {H2_STREAMS}",
        f"tune.h2.fe.glitches-threshold {H2_GLITCHES}",
    ]


def default_rules(spec: ServeSpec, folder: Path) -> list[str]:
    """Time limits of a client, and refusals; `folder` has `write_answers`'s files."""
    return [
        f"timeout http-request {spec.limits.header_timeout_s}s",
        f"timeout http-keep-alive {spec.limits.idle_timeout_s}s",
        "option http-restrict-req-hdr-names delete",
        "option http-ignore-probes",
        *(f"errorfile {status} {folder}/answer-{status}.http" for status in ERRORFILES),
    ]


def request_rules(spec: ServeSpec, folder: Path) -> list[str]:
    """What a request may be, before a replica sees it."""
    limits = spec.limits
    too_long = f"http-request return errorfile {folder}/answer-431.http if"
    is_read = f"unless {{ req.body_size gt {spec.max_body_bytes} }}"
    return [
        f"{too_long} {{ req.hdrs,length gt {limits.max_header_bytes} }}",
        f"{too_long} {{ req.fhdr_cnt gt {limits.max_headers} }}",
        TELL_CLIENT,
        f"http-request wait-for-body time {_ms(limits.body_timeout_s)} {is_read}",
    ]


def answer_of(status: int) -> bytes:
    """A whole HTTP answer, in the shape of our own refusals."""
    message, hint, more = REFUSALS[status]
    body = json.dumps({"error": {"code": CODE_OF[status], "message": message, "hint": hint}})
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _closed_paths(spec: ServeSpec, folder: Path) -> list[str]:
    """Ray's own paths, which tell applications and their routes, need a key as all others do; but nobody has one for
    them."""
    if spec.auth is None:
        return []
    rays = "{ path,url_dec -m beg /-/ } !{ path /-/healthz }"
    return [f"http-request return errorfile {folder}/answer-401.http if {rays}"]


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _bind(spec: ServeSpec, folder: Path, protocols: str) -> str:
    """Where it listens, without the port; what a client has not taken from the kernel in time ends its connection."""
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    tls = f" ssl crt {folder}/{certificate.BUNDLE} alpn {protocols} ssl-min-ver TLSv1.2" if spec.tls is not None else ""
    return f"{host} tcp-ut {spec.limits.stalled_timeout_s}s{tls}"


def _lines(words: Iterable[str]) -> str:
    return "\n".join(f"    {each}" for each in words)
