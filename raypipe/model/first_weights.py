"""Weights that a training starts from: those of another model, by name (`model.init_from`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from raypipe.errors import ArtifactError, ModelError
from raypipe.model.untrusted import tensor_shapes
from raypipe.spec.model import Model

MAX_NAMES_TOLD = 3


def start_from(network: nn.Module, spec: Model, weights: bytes) -> str:
    """Give a network the weights that `spec.init_from` names; what they lack keeps the weights it has.

    Args:
        weights: a safetensors file.
    Returns:
        What was taken, and what begins anew, in words.
    Raises:
        ModelError: the file is none, holds NaN or infinity, or does not fit the network: without `spec.init_partial`
            in any tensor, with it in all.
    """
    what = f"model.init_from: {spec.init_from}"
    given = _tensors(weights, what)
    state = network.state_dict()
    missing = [name for name in state if name not in given]
    unknown = sorted(name for name in given if name not in state)
    other = {name: told for name in state if name in given and (told := _difference(name, given[name], state[name]))}
    taken = [name for name in state if name in given and name not in other]
    problems = [
        *_counted(missing, "is missing there", "are missing there"),
        *_counted(unknown, "is not known here", "are not known here"),
        *_counted(list(other.values()), "has another shape or type", "have another shape or type"),
    ]
    fits = f"{len(taken)} of the network's {len(state)} tensors fit"
    if not taken or (problems and not spec.init_partial):
        raise ModelError(f"{what} does not fit the network: {fits}; {'; '.join(problems)}", _hint(given, state, taken))
    for name in taken:
        if not bool(torch.isfinite(given[name]).all()):
            raise ModelError(f"{what}: '{name}' holds NaN or infinite values", "take a model that was trained well")
    with torch.no_grad():
        for name in taken:
            state[name].copy_(given[name])
    return f"starts from {spec.init_from}: {fits}" + (f"; {'; '.join(problems)}" if problems else "")


def _tensors(weights: bytes, what: str) -> dict[str, Tensor]:
    try:
        tensor_shapes(weights)
        return safetensors.torch.load(weights)
    except (ArtifactError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, ArtifactError) else f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelError(
            f"{what} is no whole safetensors file: {reason}",
            "write it anew with safetensors.torch.save_file(state_dict, path)",
        ) from None


def _counted(names: Sequence[str], one: str, many: str) -> list[str]:
    """`2 are missing there (head.weight, head.bias)`; nothing where there are none."""
    if not names:
        return []
    more = f" and {len(names) - MAX_NAMES_TOLD} more" if len(names) > MAX_NAMES_TOLD else ""
    shown = ", ".join(name[:160] for name in names[:MAX_NAMES_TOLD])
    return [f"{len(names)} {one if len(names) == 1 else many} ({shown}{more})"]


def _difference(name: str, given: Tensor, own: Tensor) -> str:
    """Why a tensor cannot be taken, in words; empty where it can: floats of any precision become the network's."""
    if given.shape != own.shape:
        return f"{name} {list(given.shape)}, here {list(own.shape)}"
    if given.is_floating_point() != own.is_floating_point():
        return f"{name} {given.dtype}, here {own.dtype}".replace("torch.", "")
    return ""


def _hint(given: Mapping[str, Tensor], state: Mapping[str, Tensor], taken: Sequence[str]) -> str:
    if taken:
        return "build the same network, or set model.init_partial: true to let the rest begin anew"
    for name in given:
        ours = next((ours for ours in state if name.endswith(f".{ours}")), None)
        if ours is not None:
            return f"names there begin with '{name.removesuffix(ours)}': save the weights without it"
        ours = next((ours for ours in state if ours.endswith(f".{name}")), None)
        if ours is not None:
            return f"names here begin with '{ours.removesuffix(name)}': save the weights with it"
    return "these are the weights of another network: take those of one with model's own layers"
