"""What evaluate decides before anything is scored."""

from __future__ import annotations

import pytest

from raypipe.errors import DataError
from raypipe.evaluate.stage import evaluate, judged_before
from raypipe.records import ModelVersion
from raypipe.spec.evaluate import EvaluateSpec
from raypipe.testing import tiny
from raypipe.testing.fakes import MemoryStore, run_context


def test_evaluate_on_an_empty_test_split_is_an_error_that_says_what_to_set():
    store = MemoryStore()
    trained = tiny.trained(store, tiny.dataset(store, num_test_rows=10))
    empty = tiny.dataset(store, num_test_rows=10)
    empty = empty.model_copy(update={"splits": {**empty.splits, "test": empty.splits["train"]}})
    with pytest.raises(DataError, match=r"the test split has no rows.*\ntry: set data\.split\.test_frac above 0"):
        evaluate(EvaluateSpec(), trained, empty, None, run_context(store))


@pytest.mark.parametrize(
    ("gates", "is_known"),
    [
        ([{"metric": "accuracy", "min_gain_over_champion": 0}], True),
        ([{"metric": "roc_auc", "min": 0.5}, {"metric": "accuracy", "min_gain_over_champion": 0}], True),
        ([{"metric": "roc_auc", "min_gain_over_champion": 0}], False),
    ],
)
def test_champion_judged_before_a_metric_was_measured_is_not_taken_for_one_that_has_none_of_it(gates, is_known: bool):
    store = MemoryStore()
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset)
    report = tiny.report(trained, accuracy=0.9)
    champion = ModelVersion(
        model="m",
        version=3,
        artifact=trained.artifact,
        signature=dataset.signature,
        run_id="r",
        dataset=dataset.version,
        metrics=report.metrics,
        evaluation=report,
        created_at="2026-01-01T00:00:00Z",
    )
    spec = EvaluateSpec.model_validate({"gates": gates})
    assert judged_before(champion, dataset, spec) == ({"accuracy": 0.9} if is_known else None)
    other = dataset.model_copy(update={"version": "another"})
    assert judged_before(champion, other, spec) is None
