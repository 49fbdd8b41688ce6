"""A user's own network that raises for a certain value, before its layers or after them; bench_batching asks it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

REFUSED_ABOVE = 1000.0
"""Of the first feature."""


class Picky(nn.Module):
    """Fully connected layers that do not take every row."""

    def __init__(self, num_features: int, hidden: Sequence[int], num_outputs: int, early: bool) -> None:
        super().__init__()
        widths = [num_features, *hidden]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))
        self.early = early

    def forward(self, rows_BF: Tensor) -> Tensor:
        if self.early:
            refuse(rows_BF)
        answer_BK = self.layers(rows_BF)
        refuse(rows_BF)
        return answer_BK


def refuse(rows_BF: Tensor) -> None:
    """As an embedding refuses an index it does not have."""
    if bool((rows_BF[:, 0] > REFUSED_ABOVE).any()):
        raise IndexError("index out of range")


def build(input_shape: tuple[int, ...], num_outputs: int, hidden: list[int], early: bool) -> nn.Module:
    return Picky(input_shape[0], hidden, num_outputs, early)
