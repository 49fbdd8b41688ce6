"""An answer that is sent as it is made: a piece is made once the one before has left, and none for a client that is
gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from raypipe.serve.body import Receive
from raypipe.serve.protocols import Reply


class StreamedResponse(StreamingResponse):
    """An answer in pieces, for who sends it by itself; the request ends with the last, or once nobody takes any."""

    def __init__(self, reply: Reply) -> None:
        assert reply.pieces is not None
        super().__init__(reply.pieces, reply.status, reply.headers, reply.media_type)
        self._reply, self._pieces = reply, reply.pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See Response."""
        try:
            async with aclosing(self._pieces):
                await super().__call__(scope, receive, send)
        finally:
            end(self._reply)


def end(reply: Reply) -> None:
    """The request holds nothing any more."""
    if reply.at_end is not None:
        reply.at_end()


async def send_pieces(reply: Reply, receive: Receive, send: Callable[[Any], Awaitable[None]], stalled_s: float) -> None:
    """Send the pieces of an answer whose start is sent, until the last, or until the client is gone.

    Args:
        receive: of ASGI; the body of the request was read.
        stalled_s: longest that a client may take nothing while there is something to take.
    """
    assert reply.pieces is not None
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async with aclosing(reply.pieces) as pieces:
            async for piece in pieces:
                if gone.done():
                    return
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(send(_message(piece, more=True)), stalled_s)
                    continue
                return
        await send(_message(b"", more=False))
    finally:
        gone.cancel()


async def unless_gone(answer: Awaitable[Reply], receive: Receive) -> Reply:
    """An answer that takes long, unless its client leaves: then nothing more is done for it.

    Args:
        receive: of ASGI; the body of the request was read.
    Raises:
        ClientDisconnect: the client left.
    """
    asked, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientDisconnect
        return asked.result()
    finally:
        asked.cancel()
        gone.cancel()


async def _gone(receive: Receive) -> None:
    """Until the client is."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _message(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}
