"""Pictures in folders; a file is a row, and what is no picture is a bad row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from raypipe.data.formats.folders import Decoded, FolderFormat, RowReader, first_readable
from raypipe.data.formats.labels import FileRow
from raypipe.data.table import images
from raypipe.data.table.images import CHANNELS, PixelSettings, WrongSize
from raypipe.errors import DataError
from raypipe.spec.sources import ImagesSource


class Images(FolderFormat):
    def row_reader(self, source: ImagesSource, rows: list[FileRow]) -> RowReader:
        """`image` [H, W] or [H, W, C], of the mode's dtype.

        Raises:
            DataError: Pillow is missing, or no file is a picture, so that none tells the size.
        """
        _need_pillow()
        settings = PixelSettings(source.mode, source.size, source.size is not None, source.transparency)
        says = "data.source.size"
        if source.size is None:
            first = first_readable(rows, partial(decode, settings=settings))
            if first is None:
                raise DataError(
                    f"none of the {len(rows)} files of data.source is a readable image", f"name {images.KINDS_NAMED}s"
                )
            height, width = first[1].shape[:2]
            settings, says = replace(settings, size=(height, width)), first[0].name
        assert settings.size is not None
        shape = (*settings.size, *CHANNELS[settings.mode])
        return RowReader("image", shape, settings.dtype, partial(decode, settings=settings, says=says), "pictures")


def decode(data: bytes, *, settings: PixelSettings, says: str = "") -> Decoded:
    """Pixels of one picture file.

    Args:
        says: where the size it must have comes from, for the message.
    Raises:
        ValueError: it is no picture, has another size or more bits than it may, or pixels without end.
        Exception: what Pillow raises over a damaged file.
    """
    with images.opened(data) as image:
        try:
            values = images.pixels(image, settings)
        except WrongSize as error:
            assert settings.size is not None
            raise ValueError(
                f"{error}, {says} {settings.size[0]} x {settings.size[1]}; data.source.size makes all images one size"
            ) from None
        return Decoded(values, images.notes(image, data, settings))


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise DataError("data.source.format: images needs Pillow", "pip install 'raypipe[images]'") from None
