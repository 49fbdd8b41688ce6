"""Where a request is read and its answer written: in the event loop, where that holds up nobody, else beside it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.base64_files import HoldsUpTheLoop
from raypipe.serve.encodings import decoded, decoded_if_small
from raypipe.serve.protocols import Ask, Call, Later, Reply, Route
from raypipe.serve.protocols.base import INLINE_MAX_BYTES, JSON
from raypipe.serve.side_process import SideProcess
from raypipe.serve.worker_thread import WorkerThread

if TYPE_CHECKING:
    from raypipe.model.predictor import Predictor

INLINE_MAX_VALUES = 2048
"""An answer of more numbers is written in the side process, as that may take longer than 2 ms."""

CURL_DEFAULT = "application/x-www-form-urlencoded"
"""What `curl -d '{...}'` declares unless told otherwise; read as JSON, as every other server of this kind does."""


class RequestReader:
    """Reads the requests of one replica.

    Args:
        side: for what Python takes long for.
        max_bytes: of a body, before and after it is decoded.
    """

    def __init__(self, predictor: Predictor, side: SideProcess, max_bytes: int) -> None:
        self._predictor, self._side, self._max_bytes = predictor, side, max_bytes
        self._thread = WorkerThread("raypipe-parse")

    def open(self, route: Route, call: Call) -> None:
        """Decode the body of a call; one that is large once it is decoded is left to where it is read.

        Raises:
            RequestError: 400, 413, 415; see encodings.decoded.
        """
        sent = call.body
        if self._max_bytes <= INLINE_MAX_BYTES or route.streams:
            call.body = decoded(sent, call.headers, self._max_bytes)
            return
        opened = decoded_if_small(sent, call.headers, INLINE_MAX_BYTES)
        call.body, call.is_encoded = (sent, True) if opened is None else (opened, False)

    async def read(self, route: Route, call: Call) -> tuple[Ask | Later | Reply, Any]:
        """Parse, check and transform: here, in a thread where Python does little or the model itself is asked for, or
        in the side process. Refusals come before the rows of several clients are put together.

        Returns:
            What the route's handler gives, and the features [B, *feature_shape] where it asks the model.
        """
        if not call.is_encoded:
            if len(call.body) <= INLINE_MAX_BYTES:
                with suppress(HoldsUpTheLoop):
                    return self._features(route, call)
            elif route.streams or route.protocol.is_bare(call):
                return await self._thread.run(self._features, route, call)
        return await self._side.read(route.handler, call)

    async def write(self, asked: Ask, predictions: Predictions) -> Reply:
        """The answer, as who asked wants it."""
        if predictions.values.size > INLINE_MAX_VALUES:
            return await self._side.write(asked.render, predictions)
        return asked.render(predictions)

    def _features(self, route: Route, call: Call) -> tuple[Ask | Later | Reply, Any]:
        asked = route.handler(call)
        if isinstance(asked, Reply | Later):
            return asked, None
        return asked, self._predictor.features(asked.columns)


def check_type(headers: dict[bytes, bytes], route: Route) -> None:
    """Refuse a body of another media type than the route reads.

    Raises:
        RequestError: 415.
    """
    declared = headers.get(b"content-type")
    if declared is None or declared == b"application/json":
        return
    kind = declared[:80].decode("latin-1").split(";", 1)[0].strip().lower()
    if kind in route.accepts or (JSON in route.accepts and (kind == CURL_DEFAULT or kind.endswith("+json"))):
        return
    raise RequestError(
        f"content-type {kind or 'is empty'} is not read here; expected {' or '.join(route.accepts)}",
        f"send the header content-type: {route.accepts[0]}",
        status=415,
    )
