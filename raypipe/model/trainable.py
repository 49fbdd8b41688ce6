"""Whether a network can be trained, found when it is built: one row, two rows, one backward pass, some unlike rows.

Otherwise it would be found by the first step, by the last batch of an epoch, by DDP alone, or when the model is
written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.build import check_answer

MAX_NAMES_TOLD = 5

COUNTED = (bool, int, float, str, type(None))
"""Attributes that a forward may change by setting them anew, as a counter of its calls."""


def check_trainable(module: nn.Module, kind: str, feature_shape: tuple[int, ...]) -> list[str]:
    """Try a network on the CPU, and leave it as it was.

    Args:
        module: reads float32 [B, *feature_shape].
        kind: `model.kind`, for messages.
        feature_shape: shape of one row.
    Returns:
        Names of parameters that wait for a gradient, but that the forward does not use: they stay as they are.
    Raises:
        ModelError: nothing in it can be trained, its answer has no gradient, does not depend on the rows or has another
            shape for a single row, its parameters are of several types, or its state cannot be packaged or changes its
            shape.
    """
    what = f"model.kind: {kind}"
    _check_state(module, what)
    _check_types(module, what)
    trained, held = _trained(module, what), _held(module)
    with _as_it_was(module):
        with torch.no_grad():
            one_row = _answer(module.eval(), 1, feature_shape, what)
        two_rows = _answer(module.train(), 2, feature_shape, what)
        _check_keeps(module, held, what)
        _check_one_row(one_row, two_rows, what)
        if not two_rows.is_floating_point():
            raise ModelError(f"{what} answers {two_rows.dtype}; it must answer floating-point numbers", _LOSS_HINT)
        if not two_rows.requires_grad:
            raise ModelError(
                f"{what} answers without a gradient: no parameter has a part in what it learns", _LOSS_HINT
            )
        try:
            two_rows.sum().backward()
        except Exception as error:  # a forward may do what cannot be differentiated
            raise ModelError(f"{what}: its gradient fails: {type(error).__name__}: {error}") from error
        sparse = [
            name for name, parameter in trained.items() if parameter.grad is not None and parameter.grad.is_sparse
        ]
        if sparse:
            raise ModelError(
                f"{what}: {told(sparse)} get sparse gradients, which optimizers and several workers do not take",
                "make the layer with sparse=False",
            )
        unused = [name for name, parameter in trained.items() if parameter.grad is None]
        if not (_tells_rows_apart(module.eval(), feature_shape) or _would_tell_rows_apart(module, feature_shape)):
            raise ModelError(
                f"{what} answers the same whatever it is asked: it does not read its rows",
                "let forward compute its answer from its argument",
            )
        return unused


_LOSS_HINT = "answer the last layer's output itself: no argmax, detach, numpy or torch.no_grad on the way"


def told(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES_TOLD} more" if len(names) > MAX_NAMES_TOLD else ""
    return ", ".join(names[:MAX_NAMES_TOLD]) + more


def _check_state(module: nn.Module, what: str) -> None:
    """Only dense tensors can be packaged, and DDP shares no others; found now, not when hours of training end."""
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            source = f"get_extra_state of '{name.rpartition('.')[0] or 'the network'}'"
            where = source if name.endswith("_extra_state") else f"'{name}'"
            raise ModelError(
                f"{what}: its state holds a {type(value).__name__} ({where}); only tensors can be packaged",
                "keep it as a tensor with register_buffer, or as an argument of the function that makes the network",
            )
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ModelError(f"{what}: '{name}' is no dense tensor with values; only those can be packaged")


def _held(module: nn.Module) -> dict[str, str]:
    """Each tensor of the state, by name: its type and shape."""
    return {
        name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        for name, value in module.state_dict().items()
    }


def _check_keeps(module: nn.Module, before: dict[str, str], what: str) -> None:
    """What a forward adds or gives another shape, a network that is built anew could not take back."""
    after = _held(module)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise ModelError(
                f"{what}: its forward changes what the network holds: '{name}' was {before.get(name, 'not there')} and "
                f"is {after.get(name, 'gone')} after a call; neither a checkpoint nor the packaged model could be read "
                "back",
                "keep its shape, or leave it out of the state: register_buffer(..., persistent=False)",
            )


def _check_types(module: nn.Module, what: str) -> None:
    """What is summed, clipped, averaged and sharded together must be of one type; whole numbers do not take part."""
    by_type: dict[torch.dtype, list[str]] = {}
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            by_type.setdefault(parameter.dtype, []).append(name)
    if len(by_type) > 1:
        each = "; ".join(f"{str(dtype).removeprefix('torch.')}: {told(names)}" for dtype, names in by_type.items())
        raise ModelError(
            f"{what}: its parameters are of {len(by_type)} types ({each}); they must be of one",
            "make the network float32, e.g. with .float(), before it is returned",
        )


def _tells_rows_apart(module: nn.Module, feature_shape: tuple[int, ...]) -> bool:
    """Whether two rows that differ get different answers; True too where all rows made here are refused.

    Numbers of several kinds are tried: token ids end where an embedding does, and pixels hardly differ below 1. Of the
    two rows of bits one may hold as many ones as the other, which a mean over a row does not tell apart.
    """
    random = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 2, feature_shape, generator=random).float()
    kinds = (
        torch.stack([bits, 1 - bits]),
        torch.stack([torch.zeros(feature_shape), torch.ones(feature_shape)]),
        torch.randn(2, *feature_shape, generator=random),
        torch.randint(0, 256, (2, *feature_shape), generator=random).float(),
    )
    num_refused = 0
    for rows in kinds:
        try:
            with torch.no_grad():
                answer = module(rows)
        except Exception:  # e.g. an id that the network has no embedding for
            num_refused += 1
            continue
        if not torch.equal(answer[0], answer[1]):
            return True
    return num_refused == len(kinds)


def _would_tell_rows_apart(module: nn.Module, feature_shape: tuple[int, ...]) -> bool:
    """The same of a copy whose weights are moved a little: a last layer may well start with zeros."""
    try:
        moved = copy.deepcopy(module)
    except Exception:  # some networks hold what cannot be copied; nothing is proved then
        return True
    with torch.no_grad():
        for parameter in moved.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return _tells_rows_apart(moved, feature_shape)


def _trained(module: nn.Module, what: str) -> dict[str, nn.Parameter]:
    everything = dict(module.named_parameters())
    if not everything:
        raise ModelError(
            f"{what}: the network ({type(module).__name__}) has no parameters, so there is nothing to train",
            "layers kept in a plain list or dict are not found: use nn.ModuleList or nn.ModuleDict",
        )
    trained = {name: parameter for name, parameter in everything.items() if parameter.requires_grad}
    if not trained:
        raise ModelError(
            f"{what}: every parameter is frozen (requires_grad=False): {told(list(everything))}",
            "leave at least the last layer free",
        )
    return trained


def _answer(module: nn.Module, num_rows: int, feature_shape: tuple[int, ...], what: str) -> Tensor:
    try:
        output = module(torch.zeros(num_rows, *feature_shape))
    except Exception as error:  # the user's forward may raise anything
        mode = "in training mode" if module.training else "in evaluation mode"
        raise ModelError(
            f"{what} fails {mode} with {num_rows} row(s) of shape {list(feature_shape)}: "
            f"{type(error).__name__}: {error}",
            "its forward must take any number of rows",
        ) from error
    return check_answer(output, what)


def _check_one_row(one_row: Tensor, two_rows: Tensor, what: str) -> None:
    wanted = [1, *two_rows.shape[1:]]
    if list(one_row.shape) != wanted:
        raise ModelError(
            f"{what} answers {list(one_row.shape)} for one row and {list(two_rows.shape)} for two; for one it must "
            f"answer {wanted}",
            "a squeeze() without a dimension drops the rows too: give it the dimension, e.g. squeeze(1)",
        )


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Buffers, counters, gradients, mode and torch's generator are the same after the block as before."""
    plain = [(each, {k: v for k, v in vars(each).items() if isinstance(v, COUNTED)}) for each in module.modules()]
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for each, values in plain:
                vars(each).update(values)  # `training` too
            module.zero_grad(set_to_none=True)
            with torch.no_grad():
                for owner, name, buffer, value in buffers:
                    buffer.copy_(value)
                    owner._buffers[name] = buffer  # a forward may have put another tensor in its place
