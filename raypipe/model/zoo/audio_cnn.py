"""A convolutional network for sounds, which reads what a log_mel transform gives.

Shape letters: B rows, M mel bands, T moments, C channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.features import Features
from raypipe.model.zoo.images import check_halvings
from raypipe.model.zoo.layers import ACTIVATIONS, normalization
from raypipe.spec.model import AudioCnnModel

LEVEL_DIMS: dict[str, tuple[int, ...]] = {"none": (), "sound": (1, 2), "bands": (2,)}
"""Dimensions of [B, M, T] over which the level of a sound is its mean."""


class Block(nn.Module):
    """[B, in_channels, M, T] -> [B, out_channels, M / 2, T / 2]."""

    def __init__(self, spec: AudioCnnModel, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm = normalization("group", out_channels)
        self.activation = ACTIVATIONS[spec.activation]()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.activation(self.norm(self.conv(x))))


class AudioCnn(nn.Module):
    """Reads logarithms of power [B, M, T], gives [B, num_outputs]."""

    def __init__(self, spec: AudioCnnModel, num_outputs: int) -> None:
        super().__init__()
        self.level_dims = LEVEL_DIMS[spec.level]
        widths = [1, *spec.channels]
        self.blocks = nn.ModuleList(Block(spec, *pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(spec.dropout_frac)
        self.head = nn.Linear(2 * widths[-1], num_outputs)

    def forward(self, power_BMT: Tensor) -> Tensor:
        if self.level_dims:
            power_BMT = power_BMT - power_BMT.mean(dim=self.level_dims, keepdim=True)
        x = power_BMT.unsqueeze(1)
        for block in self.blocks:
            x = block(x)
        heard_BCT = x.mean(dim=2)
        return self.head(self.dropout(torch.cat([heard_BCT.mean(dim=2), heard_BCT.amax(dim=2)], dim=1)))


def build(spec: AudioCnnModel, features: Features, num_outputs: int) -> nn.Module:
    if len(features.shape) != 2:
        raise ModelError(
            "model.kind: audio_cnn reads one sound of shape [mel bands, moments], but a row here has "
            f"{list(features.shape)}",
            "name the sound's column alone in data.features, and put a log_mel transform into data.transforms",
        )
    num = len(spec.channels)
    check_halvings(*features.shape, num, f"model.channels has {num} blocks", "bands and moments")
    return AudioCnn(spec, num_outputs)
