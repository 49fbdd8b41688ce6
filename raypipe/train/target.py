"""What is done to a regression target before the network learns it."""

from __future__ import annotations

from raypipe.data.shuffle.target import statistics
from raypipe.model.target import describe, fit_target, resolved
from raypipe.records import DatasetVersion, TargetTransform
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store


def learned_target(spec: TrainSpec, dataset: DatasetVersion, store: Store) -> tuple[TargetTransform, str]:
    """What is done to the target, and a line that says so; nothing of either where it is left as it is.

    Raises:
        DataError: the target does not allow what the file asks for.
    """
    wanted = resolved(spec.target_transform, dataset.signature)
    if wanted == "none":
        return TargetTransform(), ""
    train = statistics(store, dataset)
    fitted = fit_target(wanted, dataset.signature, train)
    return fitted, describe(fitted, dataset.signature, train)
