"""What the shape of one row says about an image; for networks of convolutions."""

from __future__ import annotations

from typing import NamedTuple

from raypipe.errors import ModelError

MAX_COLOURS = 4
"""Red, green, blue and transparency: so small a last dimension is hardly a width."""


class Image(NamedTuple):
    """Sizes of one image."""

    channels: int
    height: int
    width: int


def image_of(input_shape: tuple[int, ...], kind: str) -> Image:
    """One row [H, W] or [C, H, W] as an image.

    Args:
        kind: `model.kind`, for messages.
    Raises:
        ModelError: it is none, or its channels come last.
    """
    if len(input_shape) not in (2, 3):
        raise ModelError(
            f"model.kind: {kind} reads one image of shape [H, W] or [C, H, W], but a row here has {list(input_shape)}",
            "name the image column alone in data.features, or use model.kind: mlp",
        )
    if len(input_shape) == 3 and input_shape[2] <= MAX_COLOURS < input_shape[0]:
        raise ModelError(
            f"model.kind: {kind} reads one image of shape [C, H, W], but a row here has {list(input_shape)}, which "
            "looks like [H, W, C]",
            "put a channels_first transform last in data.transforms",
        )
    return Image(1, *input_shape) if len(input_shape) == 2 else Image(*input_shape)


def check_halvings(height: int, width: int, num: int, what: str, unit: str = "pixels") -> None:
    """Refuse an image that cannot be halved so often.

    Args:
        what: what halves it, for the message, e.g. `model.channels has 3 blocks`.
    Raises:
        ModelError: a side would be gone.
    """
    smallest = 2**num
    if min(height, width) < smallest:
        raise ModelError(
            f"{what}, each halving the image, so it needs at least {smallest}x{smallest} {unit}; the data has "
            f"{height}x{width}",
            "give fewer channels",
        )
