"""How often a row of each class counts in the loss (train.class_weights); where rows have weights of their own
(data.weight), they are multiplied.  K classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from raypipe.data.shuffle.target import class_counts
from raypipe.errors import DataError, did_you_mean
from raypipe.model.losses import Loss, build_loss
from raypipe.records import DatasetVersion
from raypipe.spec.train import TrainSpec, label_text
from raypipe.storage import Store

MAX_TOLD = 10
"""Classes named in a message."""


def learned_loss(spec: TrainSpec, dataset: DatasetVersion, store: Store, device: torch.device) -> tuple[Loss, str]:
    """What the network is trained to make small, and a line about weights of classes, where there are any.

    Raises:
        DataError, DigestMismatch, ObjectMissing: see `class_weights`.
    """
    weights, told = class_weights(spec, dataset, store)
    on_device = None if weights is None else weights.to(device)
    return build_loss(spec, dataset.signature.task, on_device), told


def class_weights(spec: TrainSpec, dataset: DatasetVersion, store: Store) -> tuple[Tensor | None, str]:
    """A weight for each class, float32 [K], and a line that says so; nothing of either where all count alike.

    Raises:
        DataError: a class that train does not have, or no class that counts.
        DigestMismatch, ObjectMissing: a shard is not what was written, where classes are counted anew.
    """
    wanted, classes = spec.class_weights, dataset.signature.classes
    if wanted is None or classes is None:
        return None, ""
    if wanted == "balanced":
        known = None if dataset.weights is None else dataset.weights.of_classes
        counts = np.array(known or class_counts(store, dataset), np.float64)
        weights = counts.sum() / (len(counts) * counts)
    else:
        texts = [label_text(label) for label in classes]
        unknown = [name for name in wanted if name not in texts]
        if unknown:
            listed = ", ".join(texts[:MAX_TOLD]) + (", ..." if len(texts) > MAX_TOLD else "")
            target = dataset.signature.target_text
            raise DataError(
                f"train.class_weights names the class '{unknown[0]}', which target '{target}' does not have"
                f"{did_you_mean(unknown[0], texts)}",
                f"its classes are {listed}",
            )
        weights = np.array([wanted.get(text, 1.0) for text in texts], np.float64)
        if not weights.any():
            raise DataError(
                "train.class_weights: every class has the weight 0, so no row would be learned from",
                "give at least one class a weight above 0",
            )
    shown = ", ".join(f"{label} {weight:.4g}" for label, weight in zip(classes[:MAX_TOLD], weights, strict=False))
    more = ", ..." if len(classes) > MAX_TOLD else ""
    return torch.from_numpy(weights.astype(np.float32)), (
        f"classes count {shown}{more} times in the losses, val_loss among them; metrics do not weigh classes"
    )
