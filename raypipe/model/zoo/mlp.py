"""Fully connected layers with an activation and dropout after each hidden one."""

from __future__ import annotations

import math

from torch import nn

from raypipe.model.zoo.layers import ACTIVATIONS
from raypipe.spec.model import MlpModel


def build(spec: MlpModel, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), ACTIVATIONS[spec.activation]()]
        if spec.dropout_frac:
            layers.append(nn.Dropout(spec.dropout_frac))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))
