"""The network as it is, operation by operation."""

from __future__ import annotations

import torch

from raypipe.model.engines.base import Answers, Engine, Features, in_memory, on_device


class Eager(Engine):
    """What every other engine is measured against; training's own evaluation calls a network the same way."""

    @torch.inference_mode()
    def __call__(self, features: Features) -> Answers:
        return in_memory(self.network(on_device(features, self.network.device)))
