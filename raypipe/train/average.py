"""An average of the weights over the steps, which often predicts better than the last weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raypipe.train.parallel import like


class Ema:
    """Exponential moving average of the parameters, each step's share `1 - decay`; nothing where decay is None.

    Each rank averages what it holds. Buffers (running averages of normalizations) are those of the last step.

    Args:
        module: its parameters are those the optimizer changes.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self.decay = decay
        names = dict(module.named_parameters()) if decay is not None else {}
        self._trained = {name: parameter for name, parameter in names.items() if parameter.requires_grad}
        self._parameters = [parameter.detach() for parameter in self._trained.values()]
        self._averages = [parameter.clone() for parameter in self._parameters]

    def update(self, step: int) -> None:
        """After optimizer step `step`, from 0. Early averages forget sooner, or they would be the random first weights.

        A function of the step alone, so that a resumed training averages as the lost one would have.
        """
        if self._averages:  # detached, so that no gradient follows
            decay = min(self.decay or 0.0, (1 + step) / (10 + step))
            lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  (one kernel for all)
            lerp(self._averages, self._parameters, 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the module has the averages as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def use(self) -> None:
        """From now on the module has the averages as its weights: the training is over."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self._averages, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name; the memory is its own."""
        return dict(zip(self._trained, self._averages, strict=True))

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over this rank's values of `tensors`."""
        for name, average in self.tensors().items():
            average.copy_(like(average, values[name]))
