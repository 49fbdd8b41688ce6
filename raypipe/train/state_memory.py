"""How much memory a rank needs for a whole copy of a training's state, and how much there is for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from raypipe.runtime.memory import available_bytes
from raypipe.spec.train import TrainSpec
from raypipe.train.fitting import num_state_copies
from raypipe.train.optim import build_optimizer
from raypipe.train.rows import World
from raypipe.train.shares import size


class StateBytes(NamedTuple):
    """What one rank holds of a whole copy, in bytes.

    Attributes:
        gradients: and what DDP sends of them.
        lowered: copies of weights in bfloat16 or float16, for a forward pass.
        checkpoint: the host's buffer that checkpoints are written from.
    """

    weights: int
    gradients: int
    optimizer: int
    lowered: int
    averages: int
    best: int
    checkpoint: int

    @property
    def text(self) -> str:
        """Each part that there is."""
        return ", ".join(f"{name} {size(num_bytes)}" for name, num_bytes in self._asdict().items() if num_bytes)


def state_bytes(module: nn.Module, spec: TrainSpec, world: World) -> StateBytes:
    """Of a whole copy on one of the ranks.

    Args:
        module: on the CPU, not in use yet.
    """
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    of_all = sum(tensor.nbytes for tensor in module.state_dict().values())
    of_trained = sum(parameter.nbytes for parameter in trained)
    optimizer = of_trained * num_state_copies(build_optimizer(spec.optimizer, trained))
    averages = of_trained if spec.ema_decay is not None else 0
    best = of_all if spec.early_stopping is not None else 0
    return StateBytes(
        weights=of_all,
        gradients=2 * of_trained,
        optimizer=optimizer,
        lowered=0 if spec.precision == "float32" else 2 * sum(parameter.numel() for parameter in parameters),
        averages=averages,
        best=best,
        checkpoint=(of_all + optimizer + averages + best) // world.size if world.device.type == "cpu" else 0,
    )


def free_bytes(need: StateBytes, spec: TrainSpec, world: World) -> int:
    """For the state of one rank: of its GPU, or of the node's memory, in which the weights lie already."""
    if world.device.type == "cuda":
        return int(torch.cuda.mem_get_info(world.device)[0] / max(1.0, 1 / max(spec.resources.num_gpus, 1e-9)))
    there = available_bytes() // world.local_size + need.weights
    return there if spec.resources.memory_bytes is None else min(there, spec.resources.memory_bytes)
