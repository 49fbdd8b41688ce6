"""A search whose driver dies, or whose files are damaged, without Ray; see test_search_stories.py."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest

from raypipe.errors import DocumentError, ModelError, NonFiniteLossError, StoreError
from raypipe.runtime.progress import Progress
from raypipe.storage import layout
from raypipe.storage.publish import MANIFEST
from raypipe.testing.fakes import MemoryStore
from raypipe.testing.trials import DriverKilled, Trials
from raypipe.tune.points import Point
from tests.unit.tune.searches import LR, far_from_a_tenth, search_spec, status_counts, told_lines

# ---- a driver that dies


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_search_killed_at_five_random_points_ends_as_if_it_had_not_been(search: str) -> None:
    asha = {"kind": "asha", "reduction_factor": 2}
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=40, search={"kind": search}, scheduler=asha)
    whole = Trials(spec, MemoryStore(), far_from_a_tenth).search()
    store = MemoryStore()
    trials = Trials(spec, store, far_from_a_tenth)
    random = np.random.default_rng(0)

    for _ in range(5):
        with pytest.raises(DriverKilled):
            trials.search(killed_after=int(random.integers(1, 12)))
    ended = trials.search()

    assert ended == whole and len(ended) == 40 == len({trial.values[LR] for trial in ended})
    assert set(status_counts(ended)) == {"completed", "stopped"}
    repeated = [trial_id for trial_id, times in Counter(trials.trained).items() if times > 1]
    assert len(trials.trained) <= 45 and len(repeated) <= 5, "only what ran when the driver died is trained again"


def test_search_that_goes_on_says_what_it_keeps_and_draws_what_it_would_have_drawn() -> None:
    spec = search_spec(
        {LR: {"log_uniform": [1e-4, 10]}}, num_trials=30, search={"kind": "tpe", "num_random_trials": 10}
    )
    stream, store = io.StringIO(), MemoryStore()
    with pytest.raises(DriverKilled):
        Trials(spec, store, far_from_a_tenth).search(killed_after=62)

    trials = Trials(spec, store, far_from_a_tenth, progress=Progress("r1", stream)).search()

    assert told_lines(stream)[0] == "20 of 30 trials ended before and are kept: 20 completed"
    ignorant = Trials(spec.model_copy(update={"seed": 1}), MemoryStore(), far_from_a_tenth).search()
    assert trials == Trials(spec, MemoryStore(), far_from_a_tenth).search() != ignorant


def test_trial_that_diverged_or_was_refused_is_not_tried_again_one_that_was_lost_is() -> None:
    failures = {1.0: NonFiniteLossError("the loss is nan"), 2.0: ModelError("too deep"), 3.0: StoreError("no answer")}
    spec = search_spec({LR: {"choice": [0.1, 1.0, 2.0, 3.0]}}, search={"kind": "grid"})

    def metric(point: Point, epoch: int) -> float:
        if point.values[LR] in failures:
            raise failures[point.values[LR]]
        return 1 / epoch

    store = MemoryStore()
    first = Trials(spec, store, metric).search()
    assert [trial.status for trial in first] == ["completed", "diverged", "failed", "failed"]
    assert [trial.error for trial in first] == [None, "the loss is nan", "too deep", "no answer"]

    failures.clear()
    trials = Trials(spec, store, metric)
    again = trials.search()
    assert trials.trained == [first[3].trial_id]
    assert [trial.status for trial in again] == ["completed", "diverged", "failed", "completed"]


def test_search_with_more_trials_goes_on_and_one_over_another_space_begins_anew() -> None:
    space = {LR: {"log_uniform": [1e-4, 10]}}
    store, stream = MemoryStore(), io.StringIO()
    first = Trials(search_spec(space, num_trials=3), store, far_from_a_tenth).search()

    longer = Trials(search_spec(space, num_trials=5), store, far_from_a_tenth)
    assert longer.search()[:3] == first and len(longer.trained) == 2

    other = search_spec({LR: {"log_uniform": [1e-3, 1]}}, num_trials=3)
    trials = Trials(other, store, far_from_a_tenth, progress=Progress("r1", stream))
    assert len(trials.search()) == len(trials.trained) == 3
    assert told_lines(stream)[0] == "the trials this run had were those of another search; it begins anew"


# ---- what the store holds


def _tampered(data: bytes) -> bytes:
    class Canary:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("something was unpickled",)

    return pickle.dumps(Canary())


def _trial_keys(trial_id: str) -> list[str]:
    return [layout.trial_point("r1", trial_id), layout.trial_record("r1", trial_id)]


@pytest.mark.parametrize("what", range(2))
@pytest.mark.parametrize("damage", [_tampered, lambda data: data[: len(data) // 2], lambda data: data[::-1]])
def test_trial_whose_files_are_tampered_with_is_trained_again_and_told(what: int, damage: Any) -> None:
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=4)
    store, stream = MemoryStore(), io.StringIO()
    first = Trials(spec, store, far_from_a_tenth).search()
    key = _trial_keys(first[1].trial_id)[what]
    store.write(key, damage(store.read(key)))

    trials = Trials(spec, store, far_from_a_tenth, progress=Progress("r1", stream))

    assert trials.search() == first and trials.trained == [first[1].trial_id]
    assert f"trial {first[1].trial_id}" in told_lines(stream)[0] and "is damaged; it is" in told_lines(stream)[0]


@pytest.mark.parametrize("damage", [_tampered, lambda data: data[:-9]])
def test_search_whose_own_file_is_tampered_with_is_refused(damage: Any) -> None:
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=2)
    store = MemoryStore()
    Trials(spec, store, far_from_a_tenth).search()
    store.write(layout.search("r1"), damage(store.read(layout.search("r1"))))

    with pytest.raises(DocumentError, match=r"search\.json is damaged"):
        Trials(spec, store, far_from_a_tenth).search()


def test_trial_whose_model_is_gone_is_trained_again() -> None:
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=3)
    store = MemoryStore()
    first = Trials(spec, store, far_from_a_tenth).search()
    store.delete(f"{layout.trial_artifact('r1', first[2].trial_id)}/{MANIFEST}")

    trials = Trials(spec, store, far_from_a_tenth)

    assert trials.search() == first and trials.trained == [first[2].trial_id]
