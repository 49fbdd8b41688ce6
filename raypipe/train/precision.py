"""In which numbers a network computes: float32 as its parameters, or bfloat16 or float16 beside float32 parameters."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy

from raypipe.errors import ResourceError
from raypipe.spec.train import Precision, TrainSpec
from raypipe.train.checkpoints import TrainState
from raypipe.train.rows import World

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

GROWS_AFTER_STEPS = 2000
"""Steps without an overflow after which the scale is doubled."""

BFLOAT16_CAPABILITY, FLOAT16_CAPABILITY = (8, 0), (5, 3)
"""The first NVIDIA GPUs that compute in it."""


def check_device(spec: TrainSpec, world: World) -> None:
    """Refuse a device that cannot do what the file asks for.

    Raises:
        ResourceError: a GPU is asked for and there is none, or it has no numbers of this precision.
    """
    if spec.resources.num_gpus > 0 and world.device.type == "cpu":
        raise ResourceError(
            f"train.resources.num_gpus: {spec.resources.num_gpus:g} asks for GPUs, but worker {world.rank} sees none "
            f"that torch {torch.__version__} can use",
            "install torch with CUDA and the GPU's driver on every node, or train on CPUs with num_gpus: 0",
        )
    if spec.precision == "float32" or world.device.type != "cuda":
        return
    needed = BFLOAT16_CAPABILITY if spec.precision == "bfloat16" else FLOAT16_CAPABILITY
    capability = torch.cuda.get_device_capability(world.device)
    if capability < needed:
        other = "float16 or float32" if spec.precision == "bfloat16" and capability >= FLOAT16_CAPABILITY else "float32"
        raise ResourceError(
            f"train.precision: {spec.precision} needs a GPU of compute capability {needed[0]}.{needed[1]} or more, but "
            f"worker {world.rank} has {torch.cuda.get_device_name(world.device)} ({capability[0]}.{capability[1]})",
            f"use train.precision: {other}",
        )


def policy(precision: Precision) -> MixedPrecisionPolicy:
    """What FSDP does: blocks compute in the precision, gradients are averaged in float32."""
    if precision == "float32":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=DTYPES[precision], reduce_dtype=torch.float32)


class Autocast:
    """Around forward passes of networks that are not sharded: layers compute in the precision where that is safe."""

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self._dtype, self._device = DTYPES[precision], device.type
        self._nothing = nullcontext() if precision == "float32" else None

    def __call__(self) -> AbstractContextManager[object]:
        if self._nothing is not None:
            return self._nothing
        return torch.autocast(self._device, self._dtype)


class Scale:
    """A factor of the loss under float16, whose small gradients would be zero without it; 1 under other precisions.

    All ranks scale alike: what they look at is the norm of the whole gradient. Where that is not finite the step is
    left out and the factor halved; it is doubled again after GROWS_AFTER_STEPS good steps.
    """

    def __init__(self, precision: Precision) -> None:
        self.is_used = precision == "float16"
        self._state = TrainState(fingerprint="")

    def resume(self, state: TrainState) -> None:
        """Go on from there, and keep there what changes."""
        self._state = state

    @property
    def factor(self) -> float:
        """Times the loss."""
        return self._state.scale if self.is_used else 1.0

    def undo(self, gradients: list[Tensor]) -> None:
        """Divide by the factor."""
        torch._foreach_mul_(gradients, 1.0 / self.factor)  # pyright: ignore[reportPrivateImportUsage]

    def takes(self, norm: Tensor | float) -> bool:
        """After a step's gradient is known, whether the step may be taken; if not, the next is scaled otherwise.

        One that is not finite even without a factor is for others to judge: then the answer is True.
        """
        state = self._state
        if not math.isfinite(float(norm)) and state.scale > 1.0:
            state.scale, state.scale_good_steps = state.scale / 2, 0
            return False
        state.scale_good_steps += 1
        if state.scale_good_steps >= GROWS_AFTER_STEPS:
            state.scale, state.scale_good_steps = state.scale * 2, 0
        return True
