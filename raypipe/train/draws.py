"""What the layers of a network draw, e.g. dropout: it follows from the seed, the step's number and the rank alone."""

from __future__ import annotations

import torch

from raypipe.runtime import seeds
from raypipe.train.rows import World

STRIDE = 0x9E3779B97F4A7C15
"""From the seed of a step to the next: odd, so that 2**32 steps have others, even in their lower half, which is what a
CPU's generator begins with. A hash for each step would take a percent of a small network's."""


class Draws:
    """torch's generators on this worker, set anew for each step.

    So a resumed training draws what the lost one would have drawn, and neither the number of checkpoints nor what else
    draws between two steps (validation, augmentation) changes a weight.

    Args:
        seed: the run's.
        world: its device is in use already, where it is a GPU.
    """

    def __init__(self, seed: int, world: World) -> None:
        self._first_seed = seeds.derive(seed, "dropout", world.rank)
        # torch.manual_seed sets the generators of every device there is, through Python, which takes far longer.
        self._generators = [torch.default_generator]
        if world.device.type == "cuda":
            index = world.device.index
            self._generators.append(
                torch.cuda.default_generators[torch.cuda.current_device() if index is None else index]
            )

    def begin(self, step: int) -> None:
        """Before optimizer step `step`, from 0."""
        seed = (self._first_seed + step * STRIDE) % 2**63
        for generator in self._generators:
            generator.manual_seed(seed)
