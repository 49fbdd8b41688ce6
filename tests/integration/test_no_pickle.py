"""Nothing that lies in a store is unpickled: not by a training, nor by one that goes on, in parts or whole, nor by a
search that goes on.

Each runs in this process alone, so that no pickle of torch or Ray passes between processes: none at all may be read.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from raypipe.errors import RaypipeError
from raypipe.storage.local import LocalFolder
from raypipe.testing.trials import DriverKilled, Trials
from raypipe.train import reporter
from raypipe.train.rows import World
from tests.unit.serve.hostile.refusals import watched
from tests.unit.train.interrupted import answer_after_interruption
from tests.unit.train.orders import killable
from tests.unit.tune.searches import LR, far_from_a_tenth, search_spec


class Canary:
    """Looks something up when it is unpickled, as all that can do harm."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.intern, ("a canary that was unpickled",))


CANARY = pickle.dumps(Canary())


@contextmanager
def nothing_unpickled() -> Iterator[None]:
    """Fails where anything was unpickled meanwhile that names a class or a function."""
    with watched("pickle.find_class") as seen:
        pickle.loads(CANARY)
        assert seen, "it would be seen"
        seen.clear()
        yield
        assert not seen, seen[:3]


def check_holds_no_pickle(store: LocalFolder, prefix: str) -> None:
    """A pickle of any protocol since 2 begins with its number; zip files are how torch.save keeps them."""
    objects = list(store.list(prefix))
    assert objects
    for info in objects:
        assert bytes(store.read(info.key)[:2]) not in (b"PK", *(bytes([0x80, number]) for number in range(2, 6))), (
            info.key
        )


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """A process group that one rank is alone in: it shards, and has nobody to send a pickle to."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", world_size=1, rank=0)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("parallel", ["auto", "sharded"])
@pytest.mark.usefixtures("group_of_one")
def test_training_that_is_lost_and_goes_on_unpickles_nothing_of_the_store(
    tmp_path: Path, parallel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # every step is told, so that it can be stopped at one
    order = killable(tmp_path / "store", "r1", parallel=parallel, epochs=2)
    with nothing_unpickled():
        found = answer_after_interruption(order, World())
    assert found["started_at"] == [0, 8], "it must have gone on from a checkpoint"
    check_holds_no_pickle(LocalFolder(order.store_uri), "runs/r1")


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_search_that_goes_on_unpickles_nothing_of_the_store(tmp_path: Path, search: str) -> None:
    store = LocalFolder(str(tmp_path / "store"))
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=8, search={"kind": search})
    with nothing_unpickled():
        with pytest.raises(DriverKilled):
            Trials(spec, store, far_from_a_tenth).search(killed_after=10)
        assert len(Trials(spec, store, far_from_a_tenth).search()) == 8
    check_holds_no_pickle(store, "runs/r1")


def test_search_whose_state_was_replaced_by_pickles_refuses_or_repeats_and_unpickles_none(tmp_path: Path) -> None:
    """FAULTS U3."""
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=2)
    store = LocalFolder(str(tmp_path / "store"))
    Trials(spec, store, far_from_a_tenth).search()
    keys = [info.key for info in store.list("runs/r1/tune")]
    num_refused = 0
    for key in keys:
        before = bytes(store.read(key))
        store.write(key, CANARY)
        with nothing_unpickled():
            try:
                assert len(Trials(spec, store, far_from_a_tenth).search()) == 2
            except RaypipeError:
                num_refused += 1
        store.write(key, before)
    assert len(keys) > 5 and num_refused, "the search's own file at the least"
