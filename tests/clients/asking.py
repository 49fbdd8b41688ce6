"""What every program of this folder does: ask an endpoint for a tensor's probabilities, then ask wrongly, print both.

    python PROGRAM URL GRPC MODEL TENSOR.npy HOW...

Prints one line for each HOW: {"how": HOW, "probabilities": float32 in hex, "error": what the client's exception says}.
Exit status 77: the client is not installed here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NOT_INSTALLED = 77


@dataclass(frozen=True)
class Endpoint:
    """Where to ask.

    Attributes:
        url: http://HOST:PORT.
        grpc: HOST:PORT.
        how: which of the forms that the client can send; empty: it has one.
    """

    url: str
    grpc: str
    model: str
    how: str

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


Ask = Callable[[Endpoint, np.ndarray], Any]
"""(endpoint, float32 [B, H, W]) -> probabilities [B, K]; raises what the client raises."""


def main(ask: Ask) -> None:
    """Ask as the command line says, in one form after the other."""
    tensor = np.load(sys.argv[4])
    for how in sys.argv[5:]:
        endpoint = Endpoint(*sys.argv[1:4], how)
        probabilities = np.asarray(ask(endpoint, tensor), np.float32)
        told = {"how": how, "probabilities": probabilities.tobytes().hex(), "error": _refusal(ask, endpoint, tensor)}
        print(json.dumps(told), flush=True)


def _refusal(ask: Ask, endpoint: Endpoint, tensor: np.ndarray) -> str:
    """What the client's exception says about too few columns."""
    try:
        ask(endpoint, np.ascontiguousarray(tensor[:, :, :-1]))
    except Exception as error:
        return str(error)
    sys.exit("a tensor of the wrong shape was answered")


def probabilities_of(predictions: list[dict[str, Any]]) -> list[list[float]]:
    """Of answers by row."""
    return [row["probabilities"] for row in predictions]
