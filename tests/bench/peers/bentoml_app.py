"""BentoML as its documentation writes it: arrays in, arrays out, and adaptive batching on one of the two paths."""

from __future__ import annotations

import bentoml
import numpy as np
from network import probabilities


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Digits:
    @bentoml.api(route="/predict")
    def predict(self, image: np.ndarray) -> np.ndarray:
        return probabilities(image.astype(np.uint8))

    @bentoml.api(route="/batched", batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1000)
    def batched(self, image: np.ndarray) -> np.ndarray:
        return probabilities(image.astype(np.uint8))
