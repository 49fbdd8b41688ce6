"""gRPC in a replica: how Ray Serve finds the calls, what it is given for them, and where it listens.

With `serve.grpc_port` Ray starts a gRPC server in every replica, HAProxy balances over them from that port, and a call
goes to the method of the application that is named like it: no hop more than HTTP has. Requests are handed on as bytes,
so that a broken one is refused in our words, and a large one is read in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from raypipe.errors import ServeError
from raypipe.serve.protocols.base import Reply
from raypipe.serve.protocols.oip_grpc import HEALTH, INFERENCE
from raypipe.spec.serve import ServeSpec

SERVICES = (INFERENCE, HEALTH)

ADD_SERVICES = "raypipe.serve.grpc_inference.add_services"
"""Where Ray Serve imports `add_services` from, in its controller, its proxies and its replicas."""

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Names a function that each proxy of Ray calls before it listens."""

HOST, MAX_BYTES = "RAYPIPE_GRPC_HOST", "RAYPIPE_GRPC_MAX_BYTES"
"""What proxies are told through their environment."""

EVERYWHERE = "[::]:"

OPTIONS = "DEFAULT_GRPC_SERVER_OPTIONS"
"""What Ray makes a gRPC server with."""

ANSWER_ROOM_BYTES = 2**31 - 1
"""As Ray has it: an answer is as large as it is."""

MAX_DETAILS_CHARS = 2000
"""A status is sent in a header, and clients take 8 KB of them."""

STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""HTTP status of a refusal -> gRPC's; others are INVALID_ARGUMENT, from 500 on INTERNAL."""

Answer = Callable[[str, dict[bytes, bytes], bytes], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Message:
    """An answer that is bytes already; Ray asks it for them as it asks protobuf's own messages."""

    body: bytes

    def SerializeToString(self) -> bytes:
        return self.body


class GrpcCalls:
    """The calls of inference.proto and health.proto, as methods that Ray Serve and grpc.aio find by their names.

    Each reads the bytes of a request; a refusal is a status and its text in the context.
    """

    answer_rpc: Answer
    """(`/SERVICE/METHOD`, metadata, bytes of the request) -> the answer."""

    async def ServerLive(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ServerLive", request, grpc_context)

    async def ServerReady(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ServerReady", request, grpc_context)

    async def ModelReady(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ModelReady", request, grpc_context)

    async def ServerMetadata(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ServerMetadata", request, grpc_context)

    async def ModelMetadata(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/ModelInfer", request, grpc_context)

    async def RepositoryIndex(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{INFERENCE.service}/RepositoryIndex", request, grpc_context)

    async def Check(self, request: bytes, grpc_context: Any) -> Message:
        return await self._called(f"/{HEALTH.service}/Check", request, grpc_context)

    async def _called(self, path: str, request: bytes, context: Any) -> Message:
        metadata = {_bytes(name): _bytes(value) for name, value in context.invocation_metadata() or ()}
        reply = await self.answer_rpc(path, metadata, request)
        if reply.headers:
            context.set_trailing_metadata(list(reply.headers.items()))
        if reply.status == 200:
            return Message(reply.body)
        # Not raised: Ray would write a traceback into its log for every wrong request.
        other = grpc.StatusCode.INTERNAL if reply.status >= 500 else grpc.StatusCode.INVALID_ARGUMENT
        context.set_code(STATUS.get(reply.status, other))
        context.set_details(reply.body.decode(errors="replace")[:MAX_DETAILS_CHARS])
        return Message(b"")


def add_services(servicer: Any, server: Any) -> None:
    """Register the calls of a servicer with a server of grpc.aio or of Ray, which puts its own in their place."""
    for service in SERVICES:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name), response_serializer=_serialized)
            for name in service.calls
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.service, handlers),))


def grpc_options(spec: ServeSpec, timeout_s: float) -> dict[str, Any] | None:
    """What Ray Serve is started with; None: without gRPC."""
    if spec.grpc_port is None:
        return None
    return {
        "port": spec.grpc_port,
        "grpc_servicer_functions": [ADD_SERVICES],
        "request_timeout_s": timeout_s,
        "enable_reflection": False,  # it would tell of calls that are looked up in another pool, and fail
    }


def grpc_env(spec: ServeSpec, host: str) -> dict[str, str]:
    """What Ray's controller, and through it every proxy and replica, needs in its environment.

    Args:
        host: where proxies and replicas listen.
    Raises:
        ServeError: the only place to reach Ray's proxies from is taken.
    """
    if spec.grpc_port is None:
        return {}
    ours = f"{__name__}.keep_proxy_on_host"
    if os.environ.get(CALLBACK, ours) != ours:
        raise ServeError(
            f"serve.grpc_port needs {CALLBACK}, which is set to {os.environ[CALLBACK]}",
            "unset it, or leave serve.grpc_port out",
        )
    return {CALLBACK: ours, HOST: host, MAX_BYTES: str(spec.max_body_bytes)}


def limit_messages(max_bytes: int) -> None:
    """In a replica, before Ray opens its ports: refuse larger messages unread."""
    os.environ[MAX_BYTES] = str(max_bytes)


def keep_proxy_on_host() -> list[Any]:
    """Called by Ray in each proxy and replica, before it listens: have the gRPC port opened on `serve.host` alone.

    Ray opens it on every address of the machine whatever `serve.host` is; there is no setting.

    Returns:
        Middlewares for HTTP: none.
    """
    from ray.serve._private import default_impl, grpc_util

    host = os.environ.get(HOST, "127.0.0.1")
    address = f"[{host}]:" if ":" in host else f"{host}:"

    def add_address(server: Any, where: str) -> None:
        if server.add_insecure_port(where.replace(EVERYWHERE, address) if where.startswith(EVERYWHERE) else where) == 0:
            raise RuntimeError(f"address already in use: {where}")

    default_impl.add_grpc_address = add_address
    limits = [
        ("grpc.max_receive_message_length", int(os.environ.get(MAX_BYTES, ANSWER_ROOM_BYTES))),
        ("grpc.max_send_message_length", ANSWER_ROOM_BYTES),
    ]
    setattr(grpc_util, OPTIONS, limits)
    return []


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
