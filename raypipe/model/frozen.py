"""Parameters that training leaves as they are: `model.frozen`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from raypipe.errors import ModelError

MAX_NAMES_TOLD = 5


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training: they get no gradient, and so no optimizer state.

    Batch normalization all of whose parameters are frozen stays in eval mode, whatever mode the network is in; one
    without parameters does where a pattern matches its running averages.

    Args:
        patterns: as the shell has them, over names of parameters.
    Raises:
        ModelError: a pattern matches no parameter.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise _matches_nothing(pattern, names)
    for name, parameter in network.named_parameters():
        if _matches(name, patterns):
            parameter.requires_grad_(False)
    for prefix, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            own = [name for name, _ in module.named_parameters()] or [name for name, _ in module.named_buffers()]
            if own and all(_matches(f"{prefix}.{name}".lstrip("."), patterns) for name in own):
                module.train = MethodType(_stay_in_eval, module)  # a method, so that a copy gets its own
                module.eval()


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(module, False)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _matches_nothing(pattern: str, names: Sequence[str]) -> ModelError:
    close = difflib.get_close_matches(pattern, [*names, *_parents(names)], n=3, cutoff=0.5)
    told = ", ".join(names[:MAX_NAMES_TOLD]) + (", ..." if len(names) > MAX_NAMES_TOLD else "")
    return ModelError(
        f"model.frozen: '{pattern}' matches none of the network's {len(names)} parameters ({told})",
        f"close are {', '.join(close)}" if close else "name parameters as the network has them, e.g. blocks.*",
    )


def _parents(names: Sequence[str]) -> list[str]:
    """`blocks.*` and the like: each module that has parameters, as a pattern."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found.update({f"{'.'.join(parts[:depth])}.*": None for depth in range(1, len(parts))})
    return list(found)
