"""What evaluate decides before anything is scored."""

from __future__ import annotations

import pytest

from raypipe.errors import DataError
from raypipe.evaluate.stage import evaluate
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
