"""PNG and JPEG files in folders; a file is a row, and what is no image is a bad row."""

from __future__ import annotations

from functools import partial

import numpy as np

from raypipe.data.formats.folders import FolderFormat, RowReader, first_readable
from raypipe.data.formats.labels import FileRow
from raypipe.data.table.images import opened, pixels
from raypipe.errors import DataError
from raypipe.spec.sources import ImagesSource


class Images(FolderFormat):
    def row_reader(self, source: ImagesSource, rows: list[FileRow]) -> RowReader:
        """`image` uint8 [H, W, 3], or [H, W] in mode L.

        Raises:
            DataError: Pillow is missing, or no file is an image, so that none tells the size.
        """
        _need_pillow()
        size, says = source.size, "data.source.size"
        if size is None:
            first = first_readable(rows, partial(decode, mode=source.mode))
            if first is None:
                raise DataError(
                    f"none of the {len(rows)} files of data.source is a readable image", "name PNG or JPEGs"
                )
            size, says = first[1].shape[:2], first[0].name
        channels = (3,) if source.mode == "RGB" else ()
        resize = partial(decode, mode=source.mode, size=size, is_resized=source.size is not None, says=says)
        return RowReader("image", (*size, *channels), "uint8", resize)


def decode(
    data: bytes, *, mode: str, size: tuple[int, int] | None = None, is_resized: bool = False, says: str = ""
) -> np.ndarray:
    """Pixels of one image file.

    Args:
        mode: RGB or L.
        size: height and width the image must have, or gets when `is_resized`.
        says: where `size` comes from, for the message.
    Returns:
        uint8 [H, W, 3] or, for L, [H, W]; transparency is left out.
    Raises:
        ValueError: it is no image, has another size, more than 8 bits a channel, or pixels without end.
        Exception: what Pillow raises over a damaged file.
    """
    with opened(data) as image:
        if size is not None and not is_resized and (image.height, image.width) != tuple(size):
            raise ValueError(
                f"is {image.height} x {image.width} pixels, {says} {size[0]} x {size[1]}; "
                "data.source.size makes all images one size"
            )
        return pixels(image, mode=mode, size=size)


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise DataError("data.source.format: images needs Pillow", "pip install 'raypipe[images]'") from None
