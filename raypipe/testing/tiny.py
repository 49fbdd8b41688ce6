"""The smallest real things: a stored dataset version, a packaged model, a report, made in milliseconds without Ray."""

from __future__ import annotations

import numpy as np

from raypipe.records import DatasetVersion, EpochMetrics, EvaluationReport, GateResult, TrainResult
from raypipe.spec.data import Task
from raypipe.spec.model import LinearModel
from raypipe.storage import Store, layout
from raypipe.testing.fakes import tiny_dataset

CLASSES = ("no", "perhaps", "yes")


def dataset(
    store: Store, *, num_test_rows: int = 2500, rows_per_shard: int = 700, task: Task = "classification", seed: int = 0
) -> DatasetVersion:
    """Rows with two numbers `a` and `b` and a target that a linear model can mostly learn; only `test` has rows.

    Args:
        num_test_rows: in shards of `rows_per_shard`.
        task: classification has a target in CLASSES, regression a number.
    """
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, num_test_rows))
    score = a + 0.5 * b + random.normal(scale=0.3, size=num_test_rows)
    if task == "classification":
        target = np.array(CLASSES, object)[np.digitize(score, [-0.5, 0.5])]
    else:
        target = score
    columns = {"a": a, "b": b}
    return tiny_dataset(store, columns, target, task=task, num_test=num_test_rows, rows_per_shard=rows_per_shard)


def trained(store: Store, dataset: DatasetVersion, *, run_id: str = "rtest", strength: float = 1.0) -> TrainResult:
    """A packaged linear model that answers by the rule behind `tiny.dataset`.

    Args:
        strength: 1 follows the rule, 0 knows nothing, NaN and infinity answer nothing.
    """
    import torch

    from raypipe.model.artifact import write_artifact
    from raypipe.model.build import build_model

    spec = LinearModel(kind="linear")
    module = build_model(spec, dataset.signature, dataset.feature_shape, None)
    rule = torch.tensor([1.0, 0.5]) * strength
    (layer,) = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    with torch.no_grad():
        if dataset.signature.classes is None:
            layer.weight.copy_(rule[None])
            layer.bias.zero_()
        else:  # logits of a score s: -s, 0.5 (the middle), s
            layer.weight.copy_(torch.stack([-rule, torch.zeros(2), rule]))
            layer.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
    ref = write_artifact(store, layout.artifact(run_id, "train"), module, spec, dataset)
    return TrainResult(
        run_id=run_id,
        dataset=dataset.version,
        artifact=ref,
        history=(EpochMetrics(epoch=1, step=1, metrics={"train_loss": 1.0}),),
        best_epoch=1,
        num_steps=1,
        num_parameters=layer.weight.numel() + layer.bias.numel(),
        num_workers=1,
        rows_per_s=1.0,
    )


def report(trained: TrainResult, *, accuracy: float = 0.9, gate: float | None = None) -> EvaluationReport:
    """A report on `trained`, with one gate if its bound is given."""
    gates = ()
    if gate is not None:
        reason = f"{accuracy} against {gate}"
        rule = f"accuracy >= {gate}"
        gates = (GateResult(metric="accuracy", rule=rule, found=accuracy, passed=accuracy >= gate, reason=reason),)
    return EvaluationReport(
        artifact=trained.artifact, dataset=trained.dataset, num_rows=2500, metrics={"accuracy": accuracy}, gates=gates
    )
