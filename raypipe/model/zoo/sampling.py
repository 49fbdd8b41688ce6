"""How the next token is chosen among what a network tells of all.

Shape letters: B rows, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raypipe.errors import NotFiniteError

LEAST_TEMPERATURE = torch.finfo(torch.float32).tiny
"""What a lower one counts as; 0 alone is no divisor."""


class Sampler:
    """Draws tokens; a row's draws follow from its own seed, whoever shares the call.

    Args:
        seeds: one a row.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_k: of how many likeliest tokens one is drawn; None: of all.
        never: ids that are not drawn, however likely.
    Raises:
        ValueError: temperature or top_k are no such numbers.
    """

    def __init__(
        self, seeds: Sequence[int], temperature: float = 1.0, top_k: int | None = None, never: Sequence[int] = ()
    ) -> None:
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature: found {temperature}; must be 0 (the likeliest token) or a number above it")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: found {top_k}; must be 1 or more")
        self._temperature, self._top_k = temperature, top_k
        self._never = torch.tensor(never, dtype=torch.int64)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, logits_BV: Tensor) -> Tensor:
        """One token a row, int64 [B], where the logits are."""
        if len(self._never):
            logits_BV = logits_BV.index_fill(1, self._never.to(logits_BV.device), -torch.inf)
        if self._temperature == 0:
            return logits_BV.argmax(dim=1)
        scaled_BV = logits_BV.detach().float().cpu()  # a CPU draws the same on every machine
        # Least the largest: divided by next to nothing, 0 is left of that, and no infinity of several.
        scaled_BV = (scaled_BV - scaled_BV.amax(dim=1, keepdim=True)) / max(self._temperature, LEAST_TEMPERATURE)
        if self._top_k is not None and self._top_k < scaled_BV.shape[1]:
            least_B1 = scaled_BV.topk(self._top_k, dim=1).values[:, -1:]
            scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, -torch.inf)
        chance_BV = scaled_BV.softmax(dim=1)
        drawn = [torch.multinomial(c, 1, generator=g) for c, g in zip(chance_BV, self._generators, strict=True)]
        return torch.cat(drawn).to(logits_BV.device)


class CheckedSampler(Sampler):
    """For texts whose probability nobody looks at: a network that answers NaN gives none, not any."""

    def draw(self, logits_BV: Tensor) -> Tensor:
        """See Sampler.

        Raises:
            NotFiniteError: the network gave NaN, infinity, or no token at all.
        """
        if not bool(torch.isfinite(logits_BV.amax(dim=1)).all()):
            raise NotFiniteError("the model's answer is not a finite number")
        return super().draw(logits_BV)
