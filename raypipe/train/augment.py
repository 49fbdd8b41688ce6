"""Training images changed at random each time they are seen; nothing else comes through here.

B rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from raypipe.errors import DataError
from raypipe.runtime import seeds
from raypipe.spec.train import AugmentSpec
from raypipe.train.rows import Batch


class Augment:
    """Changes the images of one worker's batches; nothing where the file asks for nothing.

    Raises:
        DataError: the model reads no images.
    """

    def __init__(self, spec: AugmentSpec | None, feature_shape: Sequence[int], seed: int, rank: int) -> None:
        if spec is not None:
            check(spec, feature_shape)
        self._spec, self._seed, self._rank = spec, seed, rank

    def __call__(self, batch: Batch, epoch: int, step: int) -> Batch:
        """The batch of one step, from 0, changed as follows from seed, epoch, step and rank."""
        if self._spec is None:
            return batch
        seed = seeds.derive(self._seed, "augment", epoch, step, self._rank)
        features = augmented(batch.rows.features, self._spec, seed)
        return batch._replace(rows=batch.rows._replace(features=features))


def check(spec: AugmentSpec, feature_shape: Sequence[int]) -> None:
    """Raise DataError unless the model reads images."""
    if len(feature_shape) not in (2, 3):
        raise DataError(
            f"train.augment changes images [H, W] or [C, H, W], but a row here has shape {list(feature_shape)}",
            "leave train.augment out, or name the image column alone in data.features",
        )


def augmented(image_B: Tensor, spec: AugmentSpec, seed: int) -> Tensor:
    """The images, each changed by itself: flipped and cropped, then contrast, then brightness.

    Args:
        image_B: [B, H, W], [B, C, H, W] or, with `channels: last`, [B, H, W, C]; stays as it is.
        seed: decides all that is drawn, the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    num_rows, pad = len(image_B), spec.crop_padding
    is_flipped_B = torch.rand(num_rows, generator=generator) < spec.horizontal_flip_prob
    top_B, left_B = torch.randint(2 * pad + 1, (2, num_rows), generator=generator)
    factor_B = 1 + spec.contrast_frac * _between_ones(num_rows, generator)
    more_B = spec.brightness * _between_ones(num_rows, generator)
    if spec.horizontal_flip_prob or pad:
        image_B = _cropped(image_B, spec, is_flipped_B, top_B, left_B)
    one_a_row = (num_rows, *[1] * (image_B.dim() - 1))
    if spec.contrast_frac:
        mean_B = image_B.mean(dim=tuple(range(1, image_B.dim())), keepdim=True)
        image_B = mean_B + (image_B - mean_B) * factor_B.view(one_a_row).to(image_B.device)
    if spec.brightness:
        image_B = image_B + more_B.view(one_a_row).to(image_B.device)
    return image_B


def _between_ones(num_rows: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(num_rows, generator=generator) - 1


def _cropped(image_B: Tensor, spec: AugmentSpec, is_flipped_B: Tensor, top_B: Tensor, left_B: Tensor) -> Tensor:
    """Each image, mirrored or not, from its own place among the zeros around it."""
    is_last = spec.channels == "last" and image_B.dim() == 4
    image_BCHW = image_B.movedim(-1, 1) if is_last else image_B if image_B.dim() == 4 else image_B[:, None]
    num_rows, num_channels, height, width = image_BCHW.shape
    row_BH = top_B[:, None] + torch.arange(height)
    column_W = torch.arange(width)
    column_BW = torch.where(is_flipped_B[:, None], column_W.flip(0), column_W) + left_B[:, None]
    padded = functional.pad(image_BCHW, [spec.crop_padding] * 4)
    device = image_B.device
    picked = padded[
        torch.arange(num_rows, device=device)[:, None, None, None],
        torch.arange(num_channels, device=device)[:, None, None],
        row_BH.to(device)[:, None, :, None],
        column_BW.to(device)[:, None, None, :],
    ]
    return picked.movedim(1, -1) if is_last else picked.view(image_B.shape)
