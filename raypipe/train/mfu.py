"""Model FLOPs utilization: which share of what its GPUs could compute a training has used."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from raypipe.spec.train import Precision, TrainSpec
from raypipe.train.rows import World


class Peak(NamedTuple):
    """TFLOP/s of dense matrices; None: the GPU does not compute so.

    Attributes:
        float16: and bfloat16 where the GPU has it, which is as fast.
    """

    float32: float
    tf32: float | None
    float16: float


# From NVIDIA's data sheets of H200, H100, A100, L4 and T4; figures given there "with sparsity" are halved.
_HOPPER_SXM, _HOPPER_NVL = Peak(67.0, 494.5, 989.5), Peak(60.0, 417.5, 835.5)
_A100 = Peak(19.5, 156.0, 312.0)
PEAKS = {
    "NVIDIA H200": _HOPPER_SXM,
    "NVIDIA H200 NVL": _HOPPER_NVL,
    "NVIDIA H100 80GB HBM3": _HOPPER_SXM,
    "NVIDIA H100 NVL": _HOPPER_NVL,
    "NVIDIA H100 PCIe": Peak(51.0, 378.0, 756.0),
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L4": Peak(30.3, 60.0, 121.0),
    "Tesla T4": Peak(8.1, None, 65.0),
}
"""By the whole name that torch tells: a slice of a GPU (MIG) has another one, and no peak of its own is known."""


def peak_flops(name: str, precision: Precision, *, allows_tf32: bool) -> float | None:
    """FLOP/s that a GPU can do in a precision; None where that is not known.

    Args:
        name: as `torch.cuda.get_device_name` tells it.
        allows_tf32: float32 products may be computed in TF32.
    """
    peak = PEAKS.get(name)
    if peak is None:
        return None
    if precision != "float32":
        return peak.float16 * 1e12
    return (peak.tf32 if allows_tf32 and peak.tf32 is not None else peak.float32) * 1e12


def flops_of_a_row(module: nn.Module, feature_shape: tuple[int, ...], num_rows: int) -> float | None:
    """FLOPs of matrix products, convolutions and attention, forward and backward, a row: what the model asks for, not
    what a device repeats (`train.recompute`).

    Counted on one batch of tensors without values, which takes neither time nor memory, and changes nothing.

    Args:
        module: as it was built: not yet sharded, compiled or made to recompute.
    Returns:
        None where the network cannot run on such tensors, e.g. since it looks at their values.
    """
    held: dict[str, Tensor] = {
        name: torch.empty_like(parameter, device="meta").requires_grad_(parameter.requires_grad)
        for name, parameter in module.named_parameters()
    }
    held |= {name: torch.empty_like(buffer, device="meta") for name, buffer in module.named_buffers()}
    rows = torch.empty((num_rows, *feature_shape), device="meta")
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            functional_call(module, held, (rows,)).sum().backward()
    except Exception:  # anybody's network: that it cannot be counted must not keep it from being trained
        return None
    return counter.get_total_flops() / num_rows


class DeviceUse:
    """How much of its GPUs a training uses; known on GPUs whose peak is known, for networks that can be counted.

    Args:
        module: see `flops_of_a_row`.
        counts: whether one forward pass with its backward pass is what a row takes.
    """

    def __init__(
        self, spec: TrainSpec, world: World, module: nn.Module, feature_shape: tuple[int, ...], *, counts: bool
    ) -> None:
        self._peak: float | None = None
        self._flops: float | None = None
        if world.device.type != "cuda" or not counts:
            return
        name = torch.cuda.get_device_name(world.device)
        one = peak_flops(name, spec.precision, allows_tf32=allows_tf32(module))
        if one is not None:
            rows = spec.micro_batch_rows if isinstance(spec.micro_batch_rows, int) else None
            self._peak = one * world.size
            self._flops = flops_of_a_row(module, feature_shape, rows or spec.global_batch_size // world.size)

    def share(self, rows_per_s: float) -> float | None:
        """Of all GPUs' peak, at so many rows a second of all workers; None where it is not known."""
        if self._peak is None or not self._flops or not math.isfinite(rows_per_s):
            return None
        return round(self._flops * rows_per_s / self._peak, 6)


def allows_tf32(module: nn.Module) -> bool:
    """Whether any layer may compute in TF32, by torch's settings: then that is the peak, so that none is passed."""
    backends = torch.backends
    has_convolutions = any(isinstance(each, _ConvNd) for each in module.modules())
    return backends.cuda.matmul.fp32_precision == "tf32" or (
        has_convolutions and backends.cudnn.conv.fp32_precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
    )
