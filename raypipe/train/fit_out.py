"""What the file adds to a network before ranks share it: recomputation, compilation, normalization over all ranks.

None of it changes the names of tensors, so what is saved and packaged is the network as it was built.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from raypipe.errors import ModelError, ResourceError
from raypipe.spec.train import TrainSpec
from raypipe.train.blocks import blocks_of
from raypipe.train.rows import World

COMPILERS = ("g++", "clang++", "c++")


def fit_out(module: nn.Module, spec: TrainSpec, world: World) -> None:
    """Change a network in place, before a Parallel takes it.

    Raises:
        ModelError: there is nothing to recompute, or it cannot be.
        ResourceError: what compiles is not here.
    """
    if spec.sync_batch_norm and world.size > 1:
        for each in module.modules():
            if isinstance(each, _BatchNorm):
                each.__class__ = _synced(type(each))
    if spec.recompute:
        _recompute(module, is_compiled=spec.compile)
    if spec.compile:
        _check_compiler(world)
        _compile(module)


# ---- recomputation


def _recompute(module: nn.Module, *, is_compiled: bool) -> None:
    blocks = blocks_of(module)
    if not blocks:
        raise ModelError(
            "train.recompute: the network has no layers in an nn.Sequential or nn.ModuleList, which are what is "
            "recomputed one by one",
            "put its repeated layers into one, or leave train.recompute out",
        )
    for block in blocks:
        norms = [each for each in block.modules() if isinstance(each, _BatchNorm)]
        if norms and is_compiled:
            raise ModelError(
                f"train.recompute and train.compile together do not allow for {type(norms[0]).__name__}, whose running "
                "averages would count each batch twice",
                "leave one of the two out",
            )
        # torch.compile takes a checkpoint without contexts alone
        options = {"context_fn": partial(_contexts, norms)} if norms else {}
        block.forward = _recomputed(block.forward, options)


def _recomputed(forward: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **options, **kwargs)

    return run


def _contexts(norms: list[_BatchNorm]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first forward pass, and around the one that repeats it."""
    return nullcontext(), _counting_nothing(norms)


@contextmanager
def _counting_nothing(norms: list[_BatchNorm]) -> Iterator[None]:
    """A batch that is seen again changes no running average."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


# ---- compilation


def _compile(module: nn.Module) -> None:
    """Blocks that repeat are compiled each by itself, and so only once; other networks whole."""
    blocks = [block for block in blocks_of(module) if next(block.children(), None) is not None]
    kinds = {type(block) for block in blocks}
    for each in blocks if len(kinds) < len(blocks) else [module]:
        # Module.compile() passes over the layers of torch's own modules without a word, an nn.Sequential as a whole.
        each.forward = torch.compile(each.forward)


def _check_compiler(world: World) -> None:
    if world.device.type == "cuda":
        lacks = "" if importlib.util.find_spec("triton") else "the package triton"
    else:
        names = (os.environ.get("CXX"), *COMPILERS)
        lacks = "" if any(name and shutil.which(name) for name in names) else f"a C++ compiler ({', '.join(COMPILERS)})"
    if lacks:
        raise ResourceError(
            f"train.compile: true needs {lacks} on every node, but worker {world.rank} finds none",
            "install it there, or leave train.compile out",
        )


# ---- normalization over all ranks


class _Summed(torch.autograd.Function):
    """The sum over all ranks, of which each one's loss has its part."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class _SyncedBatchNorm(_BatchNorm):
    """Normalizes over the rows of all ranks, however many each has; torch's own one does so on GPUs alone."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        values = input.float()
        others = [dim for dim in range(values.dim()) if dim != 1]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        count = torch.full((1,), values.numel() / values.shape[1], device=values.device)
        sums = _Summed.apply(torch.cat([values.sum(others), count]))
        num_values = sums[-1].detach()
        mean_C = sums[:-1] / num_values
        centered = values - mean_C.view(shape)
        var_C = _Summed.apply(centered.square().sum(others)) / num_values
        self._average(mean_C.detach(), var_C.detach() * num_values / (num_values - 1))
        normalized = centered * torch.rsqrt(var_C + self.eps).view(shape)
        if self.weight is not None:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _average(self, mean_C: Tensor, var_C: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var_C.to(self.running_var.dtype), share)


def meets_in_forward(module: nn.Module) -> bool:
    """Whether a training forward pass waits for those of other ranks, as layers normalize over all of them."""
    return any(isinstance(each, _SyncedBatchNorm | nn.SyncBatchNorm) for each in module.modules())


@cache
def _synced(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """The kind of layer with the other forward; everything else of it stays."""
    return type(f"Synced{kind.__name__}", (_SyncedBatchNorm, kind), {})
