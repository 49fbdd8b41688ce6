"""PNG and JPEG bytes -> pixels, for files of the training data and pictures in requests alike; needs no Ray."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

MODES_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def get_ready() -> None:
    """Load what the first image needs, which takes some 50 ms.

    Raises:
        ImportError: Pillow is missing.
    """
    import PIL.Image

    PIL.Image.preinit()


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """An image whose header is read and whose pixels are not, as Pillow has it.

    Raises:
        ValueError: it is no PNG or JPEG, or has more than 8 bits a channel.
        ImportError: Pillow is missing.
        Exception: what Pillow raises over a damaged file, or pixels without end.
    """
    import PIL
    import PIL.Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        except PIL.UnidentifiedImageError:
            raise ValueError("is no PNG or JPEG image") from None
        with image:
            if image.mode not in MODES_OF_8_BITS:
                raise ValueError(f"has mode {image.mode}; images have 8 bits a channel")
            yield image


def pixels(image: Any, *, mode: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of an opened image.

    Args:
        mode: RGB or L.
        size: height and width it is resized to where it has another size.
    Returns:
        uint8 [H, W, 3] or, for L, [H, W]; transparency is left out.
    Raises:
        Exception: what Pillow raises over a damaged file.
    """
    from PIL.Image import Resampling

    flat = image.convert("RGBA").convert(mode) if image.mode in ("P", "PA") else image.convert(mode)
    if size is not None and (flat.height, flat.width) != tuple(size):
        flat = flat.resize((size[1], size[0]), Resampling.BILINEAR)
    return np.asarray(flat)
