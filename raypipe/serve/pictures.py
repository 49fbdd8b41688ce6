"""Pictures in requests: a PNG or JPEG in base64 or as a data URL in place of a column's numbers, or as a whole body.

They are read by the code that reads the files of the training data, at the size and in the mode of it. A model that
learnt its pixels from elsewhere (IDX, arrays) gets grey or RGB by the shape of its column, resized where the sizes
differ; pixels are 0 to 255, whatever range the training data had. Nothing is ever fetched: an address is refused.

Shape letters: B rows, H height, W width.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import images
from raypipe.errors import RequestError
from raypipe.records import Column, Signature
from raypipe.serve.schema import expected, shown, wrong

MAX_PIXELS = 32 * 2**20
"""Of one picture, and of all in a request together; decoding them takes about half a second."""

MEDIA_TYPES = ("image/png", "image/jpeg", "application/octet-stream")
"""That a body may have which is a picture by itself."""

NOT_BASE64 = "send the bytes of a PNG or JPEG file in base64, alone or behind data:image/png;base64,"

DATA_URL = re.compile(r"data:([^;,]{0,80})((?:;[^;,]{0,80}){0,4}),", re.IGNORECASE)
ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,30}:|//)")

INLINE_PIXELS = 2**17
"""More than this are not decoded on the event loop, as it takes longer than 2 ms."""

BLANKS = str.maketrans("-_", "+/", " \t\r\n")
"""base64 for addresses is read too, and lines as the `base64` command breaks them."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a picture lie in its column.

    Attributes:
        mode: RGB or L.
        size: height and width.
        is_resized: whether a picture of another size is brought to it; else it is refused.
    """

    mode: str
    size: tuple[int, int]
    is_resized: bool
    channels_first: bool = False


class HoldsUpTheLoop(Exception):
    """Work that takes too long for the event loop; the same call goes through in a thread."""


class Pictures:
    """Reads pictures for the columns of a model that hold some.

    Attributes:
        columns: names of these; none where Pillow is missing.
    """

    def __init__(self, signature: Signature) -> None:
        layouts = {column.name: layout_of(column, signature) for column in signature.inputs}
        self._layouts = {name: layout for name, layout in layouts.items() if layout is not None}
        self.can_read = find_spec("PIL") is not None
        self.columns = frozenset(self._layouts if self.can_read else ())
        if self.columns:
            images.get_ready()

    def read(self, column: Column, files: Sequence[str | bytes], rows: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels of pictures.

        Args:
            files: base64, data URLs, or the bytes of files.
            rows: number of the row of each, for messages.
        Returns:
            [B, *column.shape].
        Raises:
            RequestError: 400 naming row and field; 413: too many pixels; 415: this server cannot read pictures.
            HoldsUpTheLoop: it was called on an event loop, and there is much to decode.
        """
        layout = self._layouts.get(column.name)
        if layout is None:
            raise wrong(f"row {rows[0]}, field '{column.name}'", files[0], expected(column), column)
        if not self.can_read:
            raise RequestError(
                "this server reads no pictures: Pillow is not installed there",
                "send the pixels as numbers, or pip install 'raypipe[images]' where the model is served",
                status=415,
            )
        read = np.empty((len(files), *column.shape), np.uint8)
        left, is_inline = MAX_PIXELS, _is_on_event_loop()
        for i, (file, row) in enumerate(zip(files, rows, strict=True)):
            where = f"row {row}, field '{column.name}'"
            with _opened(file, where) as image:
                left -= image.height * image.width
                if left < 0:
                    raise _too_many(where, f"{image.height} x {image.width}")
                if is_inline and MAX_PIXELS - left > INLINE_PIXELS:
                    raise HoldsUpTheLoop
                read[i] = _values(image, layout, where).reshape(column.shape)
        return read


def layout_of(column: Column, signature: Signature) -> Layout | None:
    """How a picture becomes a value of the column; None where the column holds no pictures."""
    if column.dtype != "uint8" or len(column.shape) not in (2, 3):
        return None
    reading = signature.reading
    if reading is not None and reading.format == "images":
        height, width = column.shape[:2]
        return Layout(reading.settings.get("mode", "RGB"), (height, width), reading.settings.get("size") is not None)
    if len(column.shape) == 2:
        return Layout("L", (column.shape[0], column.shape[1]), is_resized=True)
    first, middle, last = column.shape
    if last in (1, 3):
        return Layout("RGB" if last == 3 else "L", (first, middle), is_resized=True)
    if first in (1, 3):
        return Layout("RGB" if first == 3 else "L", (middle, last), is_resized=True, channels_first=True)
    return None


def _bytes_of(file: str | bytes, where: str) -> bytes:
    """The file that a text holds.

    Raises:
        RequestError: 400.
    """
    if isinstance(file, bytes):
        return file
    text = file.strip()
    url = DATA_URL.match(text)
    if url is not None:
        kind, how = url[1].lower(), url[2].lower()
        if kind not in ("image/png", "image/jpeg", "image/jpg") or not how.endswith(";base64"):
            raise RequestError(
                f"{where}: found a data URL of {shown(kind + how)}; expected image/png or image/jpeg in base64",
                NOT_BASE64,
            )
        text = text[url.end() :]
    elif ADDRESS.match(text):
        raise RequestError(f"{where}: found an address; nothing is fetched from one", NOT_BASE64)
    text = text.translate(BLANKS)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{where}: the text is no picture in valid base64", NOT_BASE64) from None


@contextmanager
def _opened(file: str | bytes, where: str) -> Iterator[Any]:
    """A picture whose header is read; what Pillow raises meanwhile becomes a refusal.

    Raises:
        RequestError: 400, or 413.
    """
    data = _bytes_of(file, where)
    try:
        with images.opened(data) as image:
            yield image
    except (RequestError, HoldsUpTheLoop):
        raise
    except Exception as error:  # over damaged bytes Pillow raises whatever comes
        if "Decompression" in type(error).__name__:
            raise _too_many(where, "too many") from None
        why = str(error) if str(error).startswith(("is no PNG", "has mode")) else "is damaged"
        raise RequestError(f"{where}: the picture {why}", "send a PNG or JPEG with 8 bits a channel") from None


def _values(image: Any, layout: Layout, where: str) -> NDArray[np.uint8]:
    """Pixels as the column has them, but for an axis of one channel."""
    height, width = layout.size
    if not layout.is_resized and (image.height, image.width) != layout.size:
        raise RequestError(
            f"{where}: the picture is {image.height} x {image.width} pixels; the model reads {height} x {width} "
            "(height x width)",
            "resize it before sending",
        )
    pixels = images.pixels(image, mode=layout.mode, size=layout.size)
    return pixels.transpose(2, 0, 1) if layout.channels_first and layout.mode == "RGB" else pixels


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _too_many(where: str, found: str) -> RequestError:
    return RequestError(
        f"{where}: the picture has {found} pixels; the pictures of a request have at most {MAX_PIXELS} together",
        "send fewer or smaller pictures",
        status=413,
    )


def looks_like_picture(body: bytes) -> bool:
    """Whether bytes begin as a PNG or JPEG file does."""
    return body.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def only_picture_column(signature: Signature, pictures: frozenset[str]) -> Column | None:
    """The single input of a model of pictures: what a body of nothing but a picture means."""
    inputs = signature.inputs
    return inputs[0] if len(inputs) == 1 and inputs[0].name in pictures else None


def unwrapped(value: Any) -> Any:
    """The text in TensorFlow Serving's {"b64": text}; anything else as it is."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str):
        return value["b64"]
    return value
