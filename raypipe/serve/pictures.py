"""Pictures in requests: a file in base64 or as a data URL in place of a column's numbers, or as a whole body.

They are read by the code that reads the files of the training data, at the size and in the mode of it. A model that
learnt its pixels from elsewhere (IDX, arrays) gets grey or RGB by the shape of its column, resized where the sizes
differ; pixels are 0 to 255, whatever range the training data had. Nothing is ever fetched: an address is refused.

Shape letters: B rows, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import images
from raypipe.data.table.images import CHANNELS, GROUNDS, PixelSettings, TooManyPixels, WrongSize
from raypipe.errors import RequestError
from raypipe.records import Column, Signature
from raypipe.serve.base64_files import FileKind, HoldsUpTheLoop, bytes_of, is_on_event_loop
from raypipe.serve.schema import expected, wrong

MAX_PIXELS = 32 * 2**20
"""Of one picture, and of all in a request together, as they come and as the model reads them; decoding them takes about
half a second."""

PICTURE_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "image/tiff")

PICTURE = FileKind("picture", PICTURE_TYPES, f"a {images.KINDS_NAMED} file", "image/png")

INLINE_PIXELS = 2**17
"""More than this are not decoded on the event loop, as it takes longer than 2 ms."""


@dataclass(frozen=True)
class Layout:
    """How the pixels of a picture lie in its column.

    Attributes:
        settings: their size is never None.
    """

    settings: PixelSettings
    channels_first: bool = False

    @property
    def num_pixels(self) -> int:
        """Of one picture in the column."""
        height, width = self.settings.size or (0, 0)
        return height * width


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

    def read(self, column: Column, files: Sequence[str | bytes], rows: Sequence[int]) -> NDArray[Any]:
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
        if len(files) * layout.num_pixels > MAX_PIXELS:
            found = f"{len(files)} pictures have {layout.num_pixels} pixels each, as the model reads them"
            raise _too_many(f"field '{column.name}': {found}")
        read = np.empty((len(files), *column.shape), column.dtype)
        left, is_inline = MAX_PIXELS, is_on_event_loop()
        for i, (file, row) in enumerate(zip(files, rows, strict=True)):
            where = f"row {row}, field '{column.name}'"
            with _opened(file, where) as image:
                left -= max(image.height * image.width, layout.num_pixels)
                if left < 0:
                    raise _too_many(f"{where}: the picture has {image.height} x {image.width} pixels")
                if is_inline and MAX_PIXELS - left > INLINE_PIXELS:
                    raise HoldsUpTheLoop
                read[i] = _values(image, layout, where).reshape(column.shape)
        return read


def layout_of(column: Column, signature: Signature) -> Layout | None:
    """How a picture becomes a value of the column; None where the column holds no pictures."""
    if column.dtype not in ("uint8", "uint16") or len(column.shape) not in (2, 3):
        return None
    reading = signature.reading
    if reading is not None and reading.format == "images":
        return _as_learned(column, reading.settings)
    if column.dtype != "uint8":
        return None
    if len(column.shape) == 2:
        return Layout(PixelSettings("L", (column.shape[0], column.shape[1]), is_resized=True))
    first, middle, last = column.shape
    if last in (1, 3):
        return Layout(PixelSettings("RGB" if last == 3 else "L", (first, middle), is_resized=True))
    if first in (1, 3):
        mode = "RGB" if first == 3 else "L"
        return Layout(PixelSettings(mode, (middle, last), is_resized=True), channels_first=mode == "RGB")
    return None


def _as_learned(column: Column, fields: Mapping[str, Any]) -> Layout | None:
    """As the source of the training data read its files; None where such a source gives no such column."""
    mode, transparency = fields.get("mode", "RGB"), fields.get("transparency", "drop")
    if mode not in CHANNELS or transparency not in ("drop", *GROUNDS):
        return None
    settings = PixelSettings(mode, (column.shape[0], column.shape[1]), fields.get("size") is not None, transparency)
    fits = (column.dtype, column.shape[2:]) == (settings.dtype, CHANNELS[mode])
    return Layout(settings) if fits else None


@contextmanager
def _opened(file: str | bytes, where: str) -> Iterator[Any]:
    """A picture whose header is read; what Pillow raises meanwhile becomes a refusal.

    Raises:
        RequestError: 400, or 413.
    """
    data = bytes_of(file, where, PICTURE)
    try:
        with images.opened(data) as image:
            yield image
    except (RequestError, HoldsUpTheLoop):
        raise
    except TooManyPixels:
        raise _too_many(f"{where}: the picture has too many pixels") from None
    except Exception as error:  # over damaged bytes Pillow raises whatever comes
        why = str(error) if str(error).startswith((images.NO_PICTURE, "has mode", "has 16 bits")) else "is damaged"
        raise RequestError(
            f"{where}: the picture {why}", f"send a {images.KINDS_NAMED} file as those the model learned from"
        ) from None


def _values(image: Any, layout: Layout, where: str) -> NDArray[Any]:
    """Pixels as the column has them, but for an axis of one channel."""
    try:
        pixels = images.pixels(image, layout.settings)
    except WrongSize as error:
        height, width = layout.settings.size or (0, 0)
        raise RequestError(
            f"{where}: the picture {error}; the model reads {height} x {width} (height x width)",
            "resize it before sending",
        ) from None
    return pixels.transpose(2, 0, 1) if layout.channels_first else pixels


def _too_many(found: str) -> RequestError:
    return RequestError(
        f"{found}; the pictures of a request have at most {MAX_PIXELS} together",
        "send fewer or smaller pictures",
        status=413,
    )


def looks_like_picture(body: bytes | bytearray) -> bool:
    """Whether bytes begin as a picture file does."""
    begins = body.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"))
    return begins or (body.startswith(b"RIFF") and body[8:12] == b"WEBP")
