"""The blocks of a network: parts that repeat, each of which is sharded, recomputed and compiled by itself."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The layers in the network's lists and sequences, e.g. those of a transformer; of nested ones, the innermost.

    Only layers with parameters, none of which is also used elsewhere: such a one belongs to no block alone.
    """
    users: dict[int, int] = {}
    for each in module.modules():
        for parameter in each.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    candidates = dict.fromkeys(_listed(module, is_listed=False))
    return [
        block
        for block in candidates
        if block is not module
        and next(block.parameters(), None) is not None
        and all(users[id(parameter)] == 1 for parameter in block.parameters())
    ]


def _listed(module: nn.Module, *, is_listed: bool) -> Iterator[nn.Module]:
    if isinstance(module, CONTAINERS):
        for child in module.children():
            yield from _listed(child, is_listed=True)
    elif is_listed:
        yield module
    else:
        for child in module.children():
            yield from _listed(child, is_listed=False)
