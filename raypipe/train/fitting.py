"""How many rows of one forward and backward pass a GPU has room for, found before the first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from raypipe.errors import UserCodeError
from raypipe.train.rows import World
from raypipe.train.together import agreed, gathered, summed


def largest_that_fits(attempt: Callable[[int], None], num_rows: int, world: World) -> int:
    """All rows, or half of them again and again until they fit; the same number on every rank, so that all make equally
    many passes a step.

    Args:
        attempt: a forward and a backward pass over so many rows, or all that this rank has where it has fewer, that
            waits for no other rank.
        num_rows: of this rank; ranks may have unlike many.
    Raises:
        UserCodeError: not even one row fits; or what `attempt` raises, the same on every rank.
    """
    num_rows = max(gathered(num_rows, world))

    def fits() -> bool:
        try:
            attempt(num_rows)
        except torch.OutOfMemoryError:
            return False  # what it held is free only after this block
        return True

    while True:
        if not summed([float(not agreed(fits, world))], world)[0]:
            return num_rows
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
        if num_rows == 1:
            raise UserCodeError(
                "the model has no room: a forward and a backward pass over a single row, beside the optimizer's "
                "state, are more than the memory of a GPU",
                "use train.parallel: sharded over more workers, train.recompute: true, or a smaller model",
            )
        num_rows = -(-num_rows // 2)


def room_for_state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """As much memory as the optimizer will take with its first step; free again when it is let go."""
    if optimizer.state:
        return []
    copies = num_state_copies(optimizer)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [torch.empty_like(parameter) for parameter in parameters if parameter.requires_grad for _ in range(copies)]


def num_state_copies(optimizer: torch.optim.Optimizer) -> int:
    """Tensors as large as a parameter that an optimizer keeps of each."""
    return 2 if "betas" in optimizer.defaults else int(bool(optimizer.defaults.get("momentum")))
