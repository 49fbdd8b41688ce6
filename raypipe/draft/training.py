"""How long and how wide to train, by the number of rows."""

from __future__ import annotations

import math


def batch_rows(num_train: int) -> int:
    """Rows a step: about a fortieth of train, a power of two from 16 to 256."""
    return int(min(256, max(16, 2 ** round(math.log2(max(1, num_train / 40))))))


def epochs(num_train: int, num_steps: int, most: int) -> int:
    """Passes over train that make about so many steps, at most `most`."""
    return max(3, min(most, round(num_steps * batch_rows(num_train) / max(1, num_train))))


def channels(side: int) -> list[int]:
    """Of the blocks of a convolutional network, each of which halves a shorter side of so many pixels, bands or
    moments."""
    return [num for halvings, num in ((1, 16), (2, 32), (3, 64)) if side >= 2 ** (halvings + 1)] or [16]
