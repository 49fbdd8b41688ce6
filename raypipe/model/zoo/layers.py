"""Layers that several architectures choose by name."""

from __future__ import annotations

import math

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}

GROUP_CHANNELS = 16
"""Channels that are normalized together, where their number can be divided so."""


def normalization(kind: str, channels: int) -> nn.Module:
    """`group` or `batch`, over images [B, channels, H, W]."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // math.gcd(channels, GROUP_CHANNELS), channels)
