"""Memory of processes that take and free whole columns again and again."""

from __future__ import annotations

import pyarrow as pa


def keep_freed() -> None:
    """Have Arrow take its memory from the C library, for the rest of this process.

    Arrow's own pool gives a freed column back to the operating system at once, and taking the pages anew for the next
    one costs more than decoding it: with it, reading 5,000,000 rows of 20 columns took 1.7 s of one core, and 1.0 s
    without (a virtual machine; tests/bench/RESULTS.md).
    """
    pa.set_memory_pool(pa.system_memory_pool())
