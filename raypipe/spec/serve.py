"""How a registered model answers requests."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.access import AuthSpec, CorsSpec, TlsSpec
from raypipe.spec.base import Spec
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.resources import ResourceSpec

HOST_NAME = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*"
ROUTE = r"/|(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+/?"


LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")


def check_host(text: str) -> str:
    """`text` if a server can listen on it.

    Raises:
        ValueError: it is neither an IP address nor a host name; it would end up in a proxy's configuration.
    """
    numeric = ":" in text or not text.strip("0123456789.")
    try:
        fits = bool(ipaddress.ip_address(text)) if numeric else re.fullmatch(HOST_NAME, text) and len(text) <= 253
    except ValueError:
        fits = False
    if not fits or "%" in text:
        raise ValueError(f"found {text[:80]!r}; must be an IP address or a host name, e.g. 127.0.0.1, :: or localhost")
    return text


def check_route(text: str) -> str:
    """`text` if requests below it can reach a model.

    Raises:
        ValueError: a client or proxy would rewrite it, or it lies where Ray Serve answers itself.
    """
    if not re.fullmatch(ROUTE, text):
        raise ValueError(
            f"found {text[:80]!r}; must be / or like /v1/digits: letters, digits, '.', '_' and '-' between single "
            "slashes, no part that is '.' or '..'"
        )
    if text.split("/")[1] == "-":
        raise ValueError(f"found {text[:80]!r}; paths below /-/ are Ray Serve's own (/-/routes, /-/healthz)")
    return text


EngineName = Literal["auto", "eager", "traced", "compile", "onnx"]


class BatchingSpec(Spec):
    """How requests that arrive together share one model call."""

    max_rows: int = Field(default=256, ge=1)
    """Rows gathered into one model call at most; a larger request is one call by itself."""
    max_waiting_rows: int = Field(default=20_000, ge=1)
    """Rows that may wait for the model in one replica; requests beyond that are answered 503 with Retry-After."""
    wait_ms: float | None = Field(default=None, ge=0, le=10_000)
    """Wait for company; unset: as long as the measured cost of a call is worth, 0: never."""
    max_wait_s: float = Field(default=5.0, gt=0, le=3600)
    """Requests that would wait longer for the model, by the measured cost of its calls, get 503 with Retry-After at
    once, unless a single one is ahead of them."""


class ServeSpec(Spec):
    """An autoscaling HTTP endpoint."""

    host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 on a cluster whose network you control."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port for gRPC (Open Inference Protocol v2 and gRPC health), on the same `host`; unset: there is none."""
    route_prefix: Annotated[str, AfterValidator(check_route)] = "/"
    """Path that the endpoint's own paths come after, e.g. `/v1/digits`."""
    min_replicas: int = Field(default=1, ge=1, le=4096)
    """Replicas kept without load."""
    max_replicas: int = Field(default=2, ge=1, le=4096)
    """Replicas under load at most."""
    target_ongoing_requests: float = Field(default=16.0, gt=0)
    """Requests in flight a replica should carry; autoscaling holds this."""
    max_ongoing_requests: int = Field(default=200, ge=1)
    """Requests in flight one replica accepts."""
    max_queued_requests: int = Field(default=1000, ge=0)
    """Requests beyond those that may wait in one replica; more get 503 with Retry-After before they are read."""
    upscale_delay_s: float = Field(default=5.0, ge=0)
    """How long load must last before replicas are added."""
    downscale_delay_s: float = Field(default=60.0, ge=0)
    """How long load must be gone before replicas are ended."""
    resources: ResourceSpec = ResourceSpec()
    """What one replica occupies."""
    batching: BatchingSpec = BatchingSpec()
    """How requests that arrive together share a model call."""
    engine: EngineName = "auto"
    """How the network is called. `auto`: traced (on a GPU: CUDA graphs) where that answers as `eager` does, which is
    torch as it is; `compile` needs a C++ compiler, `onnx` the extra raypipe[onnx]."""
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Larger request bodies get 413."""
    max_request_rows: int = Field(default=10_000, ge=1)
    """More rows in one request get 413."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """Longest time for one request; then it is answered with an error."""
    limits: LimitsSpec = LimitsSpec()
    """Connections, headers, memory and time that clients may take."""
    auth: AuthSpec | None = None
    """API keys; unset: everybody who reaches the endpoint may ask it."""
    tls: TlsSpec | None = None
    """HTTPS; unset: HTTP."""
    allow_plaintext_keys: bool = False
    """Take API keys without TLS on an address that others reach: something in front of the endpoint encrypts. On a
    cluster of several nodes, with TLS too: keys cross its network, from the node that is asked to the one that
    answers."""
    cors: CorsSpec | None = None
    """Pages of other origins that may ask; unset: none."""
    ingress: Literal["auto", "haproxy", "python"] = "auto"
    """`auto`: HAProxy on Linux, Ray's Python proxy elsewhere."""
    start_timeout_s: float = Field(default=180.0, gt=0)
    """Longest wait for the first healthy replica."""

    @model_validator(mode="after")
    def replicas_ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} must not exceed max_replicas={self.max_replicas}")
        return self

    @model_validator(mode="after")
    def keys_stay_secret(self) -> Self:
        if self.auth is not None and self.tls is None and self.host not in LOOPBACK and not self.allow_plaintext_keys:
            raise ValueError(
                f"auth on host {self.host} without tls would send keys in the clear; give tls, or say "
                "allow_plaintext_keys: true where something in front of the endpoint encrypts"
            )
        return self

    @model_validator(mode="after")
    def tls_has_haproxy(self) -> Self:
        if self.tls is not None and self.ingress == "python":
            raise ValueError("tls needs ingress: haproxy (Linux); Ray's Python proxy cannot take up a new certificate")
        return self

    @model_validator(mode="after")
    def ports_differ(self) -> Self:
        if self.grpc_port == self.port:
            raise ValueError(f"grpc_port={self.grpc_port} is the port for HTTP; choose another, e.g. 9000")
        return self
