"""One affine layer on the flattened features."""

from __future__ import annotations

import math

from torch import nn

from raypipe.spec.model import LinearModel


def build(spec: LinearModel, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_outputs))
