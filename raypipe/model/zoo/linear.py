"""One affine layer on the flattened features."""

from __future__ import annotations

import math

from torch import nn

from raypipe.model.features import Features
from raypipe.spec.model import LinearModel


def build(spec: LinearModel, features: Features, num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(features.shape), num_outputs))
