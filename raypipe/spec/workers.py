"""How many workers train: a number, or between two."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from raypipe.spec.base import Spec

Count = Annotated[int, Field(ge=1, le=4096)]


class ElasticWorkers(Spec):
    """The training begins with as many workers as there is room for, goes on with fewer where some are lost, and with
    more where there is room again. `global_batch_size` stays, and so do the rows of each step, so another number of
    workers changes the order of sums alone, and what a network draws by itself (dropout, `train.augment`) or
    normalizes over a worker's rows."""

    min: Count
    """The training waits until there is room for so many at once."""
    max: Count
    """More would not be used. Must divide `global_batch_size`."""
    grow_after_s: float = Field(default=60.0, ge=0)
    """Workers train at least so long before they are ended, at the end of an epoch, to go on with more: those take
    some ten seconds to start."""

    def num_useful(self, room: int) -> int:
        """The fewest workers, of those there is room for, with which steps take no longer than with all of them.

        Shares are not divided, and the worker with most of them decides how long a step takes: of 8 shares, 7 workers
        would hold up to 2, as 4 do.

        Args:
            room: workers there is room for; `min` or more.
        """
        most = -(-self.max // min(room, self.max))
        return max(self.min, -(-self.max // most))


def _form(value: Any) -> str:
    return "range" if isinstance(value, (dict, ElasticWorkers)) else "number"


NumWorkers = Annotated[
    Annotated[Count, Tag("number")] | Annotated[ElasticWorkers, Tag("range")],
    Discriminator(_form),
]
