"""The network of pipeline.yaml: the mean of the words' embeddings, and a linear layer."""

from __future__ import annotations

import torch
from torch import nn


class WordMean(nn.Module):
    """Reads ids of words [B, L], 0 behind the end of a text; answers [B, num_outputs]."""

    def __init__(self, num_tokens: int, num_outputs: int, width: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(num_tokens, width, mode="mean", padding_idx=0)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.words(ids.long())))


def build(input_shape: tuple[int, ...], num_outputs: int, num_tokens: int, width: int = 32) -> nn.Module:
    """A network for texts of `input_shape` words; raypipe gives the first two, `model.args` the rest."""
    return WordMean(num_tokens, num_outputs, width)
