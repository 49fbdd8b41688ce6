"""What an engine is: a network made ready once, and called with features from then on.

Shape letters: B rows, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Features = NDArray[np.float32]
"""What a network reads, [B, *feature_shape]."""

Answers = NDArray[np.float32]
"""Probabilities [B, K], or the numbers [B] of a regression as the network gives them."""


class AnsweringNetwork(nn.Module):
    """A network and the last step to its answers, so that an engine prepares both as one.

    Args:
        network: reads float32 [B, *feature_shape]; in eval mode, on `device`.
        read_output: what the network gives, in float32 -> answers; see Task.read_output.
    """

    def __init__(self, network: nn.Module, read_output: Callable[[Tensor], Tensor], *, device: str = "cpu") -> None:
        super().__init__()
        self.network = network
        self.read_output = read_output
        self.device = device
        self.eval()

    def forward(self, features: Tensor) -> Tensor:
        return self.read_output(self.network(features).float())


class Engine(ABC):
    """Answers features; one call at a time.

    Args:
        network: what to call.
        samples: features of several sizes, [B, *feature_shape] each, the first with two rows or more; to prepare with,
            and to call once, so that later calls wait for nothing. The constructor may raise whatever the preparation
            does.
    """

    notes: tuple[str, ...] = ()
    """What the preparation found that may make it wrong for rows unlike the samples."""

    def __init__(self, network: AnsweringNetwork, samples: Sequence[Features]) -> None:
        self.network = network

    @abstractmethod
    def __call__(self, features: Features) -> Answers:
        """Answers of these rows; what it gives back is the caller's own."""


def on_device(features: Features, device: str) -> Tensor:
    """Features as the network reads them."""
    rows = torch.from_numpy(features)
    return rows if device == "cpu" else rows.to(device)


def in_memory(answers: Tensor) -> Answers:
    """Answers of the network in numpy."""
    return answers.cpu().numpy() if answers.is_cuda else answers.numpy()
