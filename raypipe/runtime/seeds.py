"""One seed -> a seed per trial, worker and epoch."""

from __future__ import annotations

import hashlib


def derive(seed: int, *parts: str | int) -> int:
    """An independent seed in [0, 2**63) for e.g. `derive(seed, "shuffle", epoch, rank)`; the same in every process."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
