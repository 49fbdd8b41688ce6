"""A loop as a skilled user writes it: rows in memory, fused Adam, DDP where torchrun started several.

It builds the small network itself; the GPT and the ResNet are those of raypipe, so that the loops alone differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it runs as a file

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.bench.trainings.turns import Stopwatch, Turn, Work, take_turns


def network(work: Work, vocabulary: int) -> nn.Module:
    """The network of the work; ids of a text are below `vocabulary`."""
    if work.kind == "mnist":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    if work.kind == "gpt":
        from raypipe.model.zoo.gpt import Gpt
        from raypipe.spec.model import GptModel

        return Gpt(GptModel.model_validate(work.model), vocabulary, work.rows()[0].shape[1])
    from raypipe.model.zoo.images import Image
    from raypipe.model.zoo.resnet import ResNet
    from raypipe.spec.model import ResNetModel

    return ResNet(ResNetModel.model_validate(work.model), Image(1, 28, 28), 10)


def next_token_loss(logits: Tensor, ids: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


def prepare(work: Work) -> Callable[[], Turn]:
    features, target = work.rows()
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if size > 1:
        features, target = features[rank::size].contiguous(), target[rank::size].contiguous()
    batch, vocabulary = work.batch // size, int(features.max()) + 1
    loss_of = next_token_loss if work.kind == "gpt" else functional.cross_entropy

    def turn() -> Turn:
        module = network(work, vocabulary)
        trained = DistributedDataParallel(module) if size > 1 else module
        optimizer = torch.optim.Adam(trained.parameters(), lr=work.lr, fused=True)
        stopwatch = Stopwatch()
        stopwatch.mark()
        for _ in range(work.epochs):
            for rows in torch.randperm(len(target)).split(batch):
                x, y = features.index_select(0, rows), target.index_select(0, rows)  # faster than features[rows]
                loss = loss_of(trained(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            stopwatch.mark()
        module.eval()
        with torch.inference_mode():
            return stopwatch, work.test_accuracy(module)

    return turn


if __name__ == "__main__":
    take_turns(prepare)
