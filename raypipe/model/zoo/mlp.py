"""Fully connected layers with an activation and dropout after each hidden one; categories may be read as vectors.

Shape letters: B rows, F features, N of them plain numbers.
"""

from __future__ import annotations

import difflib
import math

import torch
from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.features import Features, Part
from raypipe.model.zoo.layers import ACTIVATIONS
from raypipe.spec.model import MlpModel


class Embed(nn.Module):
    """[B, F] -> [B, N + the vectors' widths]: plain numbers in their order, then a vector for each category's index.

    Args:
        parts: where the indices are.
        widths: of each part's vectors.
        num_features: F.
    """

    plain_N: Tensor

    def __init__(self, parts: list[Part], widths: list[int], num_features: int) -> None:
        super().__init__()
        self.places = [part.start for part in parts]
        plain = [place for place in range(num_features) if place not in set(self.places)]
        self.register_buffer("plain_N", torch.tensor(plain, dtype=torch.int64), persistent=False)
        self.width = len(plain) + sum(widths)
        self.vectors = nn.ModuleList(
            nn.Embedding((part.num_indices or 0) + 1, width) for part, width in zip(parts, widths, strict=True)
        )

    def forward(self, features_BF: Tensor) -> Tensor:
        vectors = [
            each(features_BF[:, place].long() + 1)  # -1 is a category that train has not
            for place, each in zip(self.places, self.vectors, strict=True)
        ]
        return torch.cat([features_BF.index_select(1, self.plain_N), *vectors], dim=1)


def build(spec: MlpModel, features: Features, num_outputs: int) -> nn.Module:
    width = math.prod(features.shape)
    layers: list[nn.Module] = [nn.Flatten()]
    if spec.embeddings:
        parts = _embedded(spec, features)
        embed = Embed(parts, list(spec.embeddings.values()), width)
        layers[0], width = embed, embed.width
    for hidden in spec.hidden:
        layers += [nn.Linear(width, hidden), ACTIVATIONS[spec.activation]()]
        if spec.dropout_frac:
            layers.append(nn.Dropout(spec.dropout_frac))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))


def _embedded(spec: MlpModel, features: Features) -> list[Part]:
    """The parts that model.embeddings names.

    Raises:
        ModelError: one is not there, or holds no index of a category.
    """
    parts = {part.name: part for part in features.parts()}
    named: list[Part] = []
    for name in spec.embeddings:
        part = parts.get(name)
        if part is None:
            close = difflib.get_close_matches(name, parts, n=1)
            raise ModelError(
                f"model.embeddings: there is no feature '{name}'; there are {', '.join(parts)[:500]}",
                f"did you mean '{close[0]}'?" if close else "name a feature, or a cross as `one x other`",
            )
        if part.num_indices is None or part.width != 1:
            raise ModelError(
                f"model.embeddings: '{name}' is no index of a category where the network reads it, but "
                f"{'one number' if part.width == 1 else f'{part.width} numbers'}",
                "let its last transform be ordinal, or hashing, bucketize or cross with output: index",
            )
        named.append(part)
    return named
