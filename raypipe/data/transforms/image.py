"""Images to images.

B rows, H height, W width, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypipe.data.transforms import statistics
from raypipe.data.transforms.base import Fitted, TransformKind
from raypipe.data.transforms.statistics import MeanAndStd, Moments
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import ChannelsFirstTransform, NormalizeTransform, ResizeTransform


class Resize(TransformKind):
    """Weighted means of neighbouring pixels, by height and then by width.

    One pixel after another is multiplied and added, in an order that the sizes alone decide, so that neither the batch
    nor the processor changes the last bit.
    """

    @staticmethod
    def check(spec: ResizeTransform, column: Column) -> Column:
        need_image(spec, column)
        shape = list(column.shape)
        tall = 1 if spec.channels == "first" and len(shape) == 3 else 0
        shape[tall : tall + 2] = spec.height, spec.width
        return column.model_copy(update={"shape": tuple(shape)})

    def apply(self, values: np.ndarray) -> np.ndarray:
        tall = 2 if self.state["channels"] == "first" and values.ndim == 4 else 1
        for axis, size in ((tall, self.state["height"]), (tall + 1, self.state["width"])):
            if values.shape[axis] != size:
                values = _resized(values, axis, size)
        return values


class Normalize(MeanAndStd):
    """(x - mean) / std, by channel."""

    @staticmethod
    def needs_rows(spec: NormalizeTransform) -> bool:
        return spec.mean is None

    @staticmethod
    def check(spec: NormalizeTransform, column: Column) -> Column:
        need_image(spec, column)
        num_channels = 1 if len(column.shape) == 2 else column.shape[0 if spec.channels == "first" else -1]
        if spec.mean is not None and len(spec.mean) != num_channels:
            raise DataError(
                f"data.transforms: normalize gives mean and std of {len(spec.mean)} channels, but column "
                f"'{column.name}' has {num_channels} (shape {list(column.shape)}, channels {spec.channels})",
                "give one value a channel, or set `channels` to where they are",
            )
        return column

    @staticmethod
    def partial(spec: NormalizeTransform, values: np.ndarray, name: str) -> Moments:
        pixels = _channels_last(values, spec.channels)
        return statistics.moments(pixels.reshape(-1, pixels.shape[-1]))

    @staticmethod
    def finish(spec: NormalizeTransform, partial: Moments | None, name: str) -> Fitted:
        if spec.mean is not None:
            return {"mean": spec.mean, "std": spec.std}
        return MeanAndStd.finish(spec, partial, name)

    def apply(self, values: np.ndarray) -> np.ndarray:
        is_first = self.state["channels"] == "first" and values.ndim == 4
        shape = (-1, 1, 1) if is_first or values.ndim == 3 else (-1,)
        mean, std = (fitted.astype(values.dtype).reshape(shape) for fitted in (self.mean, self.std))
        return (values - mean) / std


class ChannelsFirst(TransformKind):
    """[H, W, C] to [C, H, W]."""

    @staticmethod
    def check(spec: ChannelsFirstTransform, column: Column) -> Column:
        need_image(spec, column)
        if len(column.shape) == 2:
            raise DataError(
                f"data.transforms: channels_first needs [H, W, C], but column '{column.name}' has shape "
                f"{list(column.shape)}",
                "leave it out: an image of one channel is read as [H, W]",
            )
        height, width, num_channels = column.shape
        return column.model_copy(update={"shape": (num_channels, height, width)})

    def apply(self, values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(values, -1, 1))


def need_image(spec: Any, column: Column) -> None:
    """Raise DataError unless the column holds images of one size."""
    if column.dtype == "string" or len(column.shape) not in (2, 3):
        what = "text" if column.dtype == "string" else f"values of shape {list(column.shape)}"
        raise DataError(
            f"data.transforms: {spec.kind} needs images [H, W] or [H, W, C], but column '{column.name}' holds {what} "
            "at this place",
            "name the column of the images",
        )


def _channels_last(values: np.ndarray, channels: str) -> np.ndarray:
    """[..., C] of images [B, H, W], [B, H, W, C] or [B, C, H, W]."""
    if values.ndim == 3:
        return values[..., None]
    return np.moveaxis(values, 1, -1) if channels == "first" else values


def _resized(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    index, weight = _taps(values.shape[axis], size)
    shape = [1] * values.ndim
    shape[axis] = size
    total = np.zeros((*values.shape[:axis], size, *values.shape[axis + 1 :]), values.dtype)
    for tap_index, tap_weight in zip(index.T, weight.astype(values.dtype).T, strict=True):
        total += np.take(values, tap_index, axis=axis) * tap_weight.reshape(shape)
    return total


def _taps(size_before: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels make a new one, and how much of each: int64 and float64 [size, taps]; weights of a row sum to 1.

    A triangle around the new pixel's centre, as wide as two pixels of the coarser of the two grids.
    """
    step = size_before / size
    reach = max(step, 1.0)
    centre = (np.arange(size) + 0.5) * step - 0.5  # in pixels of before, whose centres are whole numbers
    first = np.floor(centre - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * reach)))
    weight = np.maximum(0.0, 1.0 - np.abs(index - centre[:, None]) / reach)
    weight[(index < 0) | (index >= size_before)] = 0.0
    return np.clip(index, 0, size_before - 1), weight / weight.sum(axis=1, keepdims=True)
