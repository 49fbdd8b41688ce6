"""What a step costs that reads no rows and asks nothing: the same batch again and again, through network, loss,
gradients and fused Adam. What another loop takes beyond this is its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it runs as a file

import torch
from torch import nn
from torch.nn import functional

from tests.bench.trainings.turns import Stopwatch, Turn, Work, take_turns


def prepare(work: Work) -> Callable[[], Turn]:
    features, target = work.rows()
    num_steps = len(target) // work.batch
    x, y = features[: work.batch].clone(), target[: work.batch].clone()

    def turn() -> Turn:
        module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # as model.kind: linear builds it
        optimizer = torch.optim.Adam(module.parameters(), lr=work.lr, fused=True)
        stopwatch = Stopwatch()
        stopwatch.mark()
        for _ in range(work.epochs):
            for _ in range(num_steps):
                loss = functional.cross_entropy(module(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            stopwatch.mark()
        return stopwatch, None

    return turn


if __name__ == "__main__":
    take_turns(prepare)
