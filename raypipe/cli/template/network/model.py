"""The network of pipeline.yaml: any function that returns a torch.nn.Module."""

from __future__ import annotations

import math

from torch import nn


def build(input_shape: tuple[int, ...], num_outputs: int, width: int = 128) -> nn.Module:
    """A network for rows of `input_shape`; raypipe gives the first two, `model.args` the rest."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, num_outputs),
    )
