"""Bytes of picture files -> pixels, for files of the training data and pictures in requests alike; needs no Ray."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FILE_KINDS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF")
KINDS_NAMED = "PNG, JPEG, WebP, GIF or TIFF"

NO_PICTURE = f"is no {KINDS_NAMED} picture"

MODES_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
MODES_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")

CHANNELS: dict[str, tuple[int, ...]] = {"RGB": (3,), "L": (), "RGBA": (4,), "L16": ()}
"""Mode -> how many values a pixel has: the end of its shape."""

GROUNDS = {"white": (255, 255, 255, 255), "black": (0, 0, 0, 255)}

ORIENTATION = 274
"""Tag of EXIF and TIFF."""

TIFF_ORIENTATION = "raypipe orientation"
"""Where `opened` keeps it in a TIFF, which Pillow turns as it loads it, and forgets."""

BITS_A_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and a value of the second."""

TURNED_BY = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Orientation -> what puts a picture upright.  Source: Exif 2.32, 4.6.4."""

QUARTER_TURNS = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""Those that make width of height."""


@dataclass(frozen=True)
class PixelSettings:
    """How a picture becomes numbers.

    Attributes:
        mode: RGB, L, RGBA or L16.
        size: height and width it must have, or gets when `is_resized`; None: its own.
        transparency: drop, or a colour of GROUNDS that is put under it.
    """

    mode: str = "RGB"
    size: tuple[int, int] | None = None
    is_resized: bool = False
    transparency: str = "drop"

    @property
    def dtype(self) -> str:
        return "uint16" if self.mode == "L16" else "uint8"


class TooManyPixels(ValueError):
    """A picture that is not decoded, as it would fill the memory."""


class WrongSize(ValueError):
    """A picture of another size than the others, where none is resized.

    Attributes:
        found: its height and width, upright.
    """

    def __init__(self, found: tuple[int, int]) -> None:
        super().__init__(f"is {found[0]} x {found[1]} pixels")
        self.found = found


def get_ready() -> None:
    """Load what the first image needs, which takes some 50 ms.

    Raises:
        ImportError: Pillow is missing.
    """
    import PIL.Image

    PIL.Image.init()


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """An image whose header is read and whose pixels are not, as Pillow has it.

    Raises:
        TooManyPixels: more than Pillow decodes without a warning.
        ValueError: it is of no kind of FILE_KINDS, or has more than 16 bits a channel.
        ImportError: Pillow is missing.
        Exception: what Pillow raises over a damaged file.
    """
    import PIL
    import PIL.Image

    bombs = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            image: Any = PIL.Image.open(io.BytesIO(data), formats=FILE_KINDS)
        except PIL.UnidentifiedImageError:
            raise ValueError(NO_PICTURE) from None
        except bombs as error:
            number = re.search(r"\d+", str(error))
            found = f"{int(number[0]):,}" if number else "too many"
            raise TooManyPixels(
                f"has {found} pixels, and at most {PIL.Image.MAX_IMAGE_PIXELS or 0:,} are read, as others may be a "
                "decompression bomb: make it smaller"
            ) from None
        with image:
            if image.mode not in (*MODES_OF_8_BITS, *MODES_OF_16_BITS):
                raise ValueError(f"has mode {image.mode}; pictures have 8 or 16 bits a channel")
            if image.format == "TIFF":
                image.info[TIFF_ORIENTATION] = image.tag_v2.get(ORIENTATION)
            yield image


def pixels(image: Any, settings: PixelSettings) -> np.ndarray:
    """Pixels of an opened image, upright, of its first frame.

    Returns:
        [H, W] or [H, W, C] by CHANNELS, of the settings' dtype.
    Raises:
        WrongSize: it has another size than it must.
        ValueError: it has 16 bits a pixel, and the mode keeps 8.
        Exception: what Pillow raises over a damaged file.
    """
    from PIL.Image import Resampling

    upright = _upright(image)
    if image.mode in MODES_OF_16_BITS and settings.mode != "L16":
        raise ValueError(
            f"has 16 bits a pixel, and mode {settings.mode} has 8: data.source.mode: L16 keeps them as they are"
        )
    found = (upright.height, upright.width)
    is_other = settings.size is not None and found != tuple(settings.size)
    if is_other and not settings.is_resized:
        raise WrongSize(found)
    flat = _of_16_bits(upright, settings) if settings.mode == "L16" else _of_8_bits(upright, settings)
    if is_other and settings.size is not None:
        flat = flat.resize((settings.size[1], settings.size[0]), Resampling.BILINEAR)
    return np.asarray(flat).astype(settings.dtype, copy=False)


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width of an opened image as `pixels` gives them, before its pixels are read."""
    is_turned = TURNED_BY.get(_orientation(image), "") in QUARTER_TURNS
    return (image.width, image.height) if is_turned else (image.height, image.width)


def notes(image: Any, data: bytes, settings: PixelSettings) -> list[str]:
    """What is worth telling of how an image was read: what it holds beyond its pixels, behind the words `3 pictures`.

    Args:
        image: whose pixels were read.
    """
    told: list[str] = []
    if getattr(image, "is_animated", False):
        told.append("hold several frames, of which the first is read")
    if _orientation(image) in TURNED_BY:
        told.append("are turned as their EXIF orientation says")
    if image.mode in ("P", "PA"):
        told.append("have a palette: its colours are read, not their numbers in it")
    if image.mode == "CMYK":
        told.append("are in CMYK: converted without a colour profile")
    if _is_transparent(image) and settings.mode != "RGBA" and settings.transparency == "drop":
        told.append(
            "have transparency, which is left out: data.source.transparency: white puts white under it, mode: RGBA "
            "keeps it"
        )
    if _has_16_bits_a_channel(image, data):
        told.append("have several channels of 16 bits, of which the upper 8 are read")
    return told


def _upright(image: Any) -> Any:
    from PIL.Image import Transpose

    image.load()
    turn = TURNED_BY.get(_exif_of(image).get(ORIENTATION, 1))  # of a TIFF Pillow has done it by now
    return image if turn is None else image.transpose(Transpose[turn])


def _exif_of(image: Any) -> Any:
    try:
        return image.getexif()
    except Exception:  # a camera's torn notes say nothing of the pixels
        return {}


def _orientation(image: Any) -> int:
    """As the file says it; 1 is upright."""
    return image.info.get(TIFF_ORIENTATION) or _exif_of(image).get(ORIENTATION, 1)


def _is_transparent(image: Any) -> bool:
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def _of_8_bits(image: Any, settings: PixelSettings) -> Any:
    from PIL import Image

    if settings.transparency in GROUNDS and settings.mode != "RGBA" and _is_transparent(image):
        ground = Image.new("RGBA", image.size, GROUNDS[settings.transparency])
        return Image.alpha_composite(ground, image.convert("RGBA")).convert(settings.mode)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert(settings.mode)


def _of_16_bits(image: Any, settings: PixelSettings) -> Any:
    """0 to 65535; of 8 bits 255 is white too."""
    from PIL import Image

    if image.mode not in MODES_OF_16_BITS:
        grey = np.asarray(_of_8_bits(image, replace(settings, mode="L")))
        return Image.fromarray(grey.astype(np.uint16) * 257)
    deep = np.asarray(image).astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        deep = 65535 - deep
    return Image.fromarray(deep)


def _has_16_bits_a_channel(image: Any, data: bytes) -> bool:
    """Of several channels: Pillow keeps the upper bits of each, and says nothing."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(BITS_A_SAMPLE, (8,))
        return len(bits) > 1 and max(bits) > 8
    return image.format == "PNG" and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\4", b"\6")
