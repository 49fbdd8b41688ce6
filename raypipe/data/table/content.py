"""What many rows hold together, as one value that no order, file or block can change.

Each row id is spread over four lanes of 64 bits and the lanes are summed, so that summaries of blocks add up to the
summary of the whole, without a list of all rows.  Equal multisets of rows agree; different ones differ but for chance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LANES = 4
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


def content_sums(row_id: np.ndarray) -> np.ndarray:
    """The summary of some rows.

    Args:
        row_id: uint64 [B], see split.row_hash.
    Returns:
        uint64 [1 + LANES]: how many rows, then one sum a lane; summaries of disjoint rows add up, modulo 2**64.
    """
    sums = [np.uint64(len(row_id))]
    for odd in _ODD:
        spread = row_id * odd
        spread ^= spread >> np.uint64(29)
        spread *= odd
        spread ^= spread >> np.uint64(32)
        sums.append(spread.sum(dtype=np.uint64))
    return np.array(sums, np.uint64)


def total(sums: Iterable[np.ndarray]) -> np.ndarray:
    """Summaries added up."""
    return sum(sums, np.zeros(1 + LANES, np.uint64))
