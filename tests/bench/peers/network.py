"""examples/02_mnist's network as a user without raypipe would load it; its weights lie in RAYPIPE_BENCH_WEIGHTS.

Each server asks one model of one process with one thread.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

torch.set_num_threads(1)
eager = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
eager.load_state_dict(load_file(os.environ["RAYPIPE_BENCH_WEIGHTS"]))
eager.eval()
with torch.inference_mode():
    traced: Any = torch.jit.freeze(torch.jit.trace(eager, torch.zeros(1, 28, 28)))


def probabilities(pixels_BHW: Any, model: Any = traced) -> Any:
    """uint8 [B, 28, 28] -> float32 [B, 10]."""
    with torch.inference_mode():
        logits_BK = model(torch.from_numpy(pixels_BHW.astype(np.float32) / np.float32(255)))
        return torch.softmax(logits_BK, dim=1).numpy()


def answers(probability_BK: Any) -> list[dict[str, Any]]:
    """One object a row, of numpy's numbers, as orjson writes them."""
    best_B = probability_BK.argmax(1)
    return [
        {"label": int(k), "probability": row[k], "probabilities": row}
        for k, row in zip(best_B, probability_BK, strict=True)
    ]


def plain_answers(probability_BK: Any) -> list[dict[str, Any]]:
    """The same of Python's numbers, for a framework that writes JSON itself."""
    rows, best_B = probability_BK.tolist(), probability_BK.argmax(1).tolist()
    return [{"label": k, "probability": row[k], "probabilities": row} for k, row in zip(best_B, rows, strict=True)]
