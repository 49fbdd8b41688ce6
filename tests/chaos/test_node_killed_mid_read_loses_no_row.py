"""FAULTS D2: one of two nodes goes while rows are read, checked or written; the dataset version is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import load_rows
from raypipe.records import DatasetVersion
from raypipe.storage import open_store
from raypipe.testing.faults import kill_tree
from tests.chaos import prepare_on_cluster
from tests.integration.nodes import Head, running_head

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NUM_FILES, ROWS_PER_FILE = 40, 10_000
NUM_ROWS = NUM_FILES * ROWS_PER_FILE


@pytest.fixture(scope="module")
def head(private_dir: Path) -> Iterator[Head]:
    with running_head(private_dir / "n") as found:
        yield found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    random = np.random.default_rng(0)
    for number in range(NUM_FILES):
        columns = {f"x{i}": random.normal(size=ROWS_PER_FILE) for i in range(10)}
        at = np.arange(ROWS_PER_FILE) * NUM_FILES + number  # so that every file has rows of every split
        city = pa.array([f"c{i % 7}" for i in range(ROWS_PER_FILE)])
        named = {"id": at, "at": at, "who": at, **columns, "city": city, "y": at % 3}
        pq.write_table(pa.table(named), folder / f"{number:02d}.parquet")
    return folder


@dataclass(frozen=True)
class Prepared:
    """What the driver left; `num_again`: tasks that ran more than once, `moved`: how often a byte of a row moved."""

    record: DatasetVersion
    num_again: int
    moved: float


def prepare(
    head: Head, source: Path, store: Path, kill: Callable[[dict[str, Any]], bool], fanout: int = 64
) -> Prepared:
    """Prepare on two nodes, the second of which is killed once `kill` says so of an event."""
    driver = [sys.executable, "-m", prepare_on_cluster.__name__, head.address, str(source), str(store), str(fanout)]
    killed = False
    with (
        head.joined(num_cpus=2) as second,
        subprocess.Popen(driver, env=head.env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                if not line.startswith("{"):
                    continue  # Ray tells there of the node that went
                events.append(json.loads(line))
                if not killed and kill(events[-1]):
                    kill_tree(second)
                    killed = True
            assert process.wait() == 0
        finally:
            process.kill()
    sizes = next(event for event in events if "moved_bytes" in event)
    moved = sizes["moved_bytes"] / sizes["packed_bytes"]
    return Prepared(DatasetVersion.model_validate(events[-1]), events[-2]["num_again"], moved)


@pytest.fixture(scope="module")
def undisturbed(head: Head, source: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    found = prepare(head, source, tmp_path_factory.mktemp("undisturbed"), lambda event: False)
    assert found.num_again == 0
    return found.record


def has_checked(frac: float) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["text"].startswith("checked") and event["num_rows"] >= frac * NUM_ROWS


def has_read(event: dict[str, Any]) -> bool:
    return event["text"].startswith("read")


@pytest.mark.parametrize(
    "moment", [has_checked(0.3), has_checked(0.6), has_checked(0.9), has_read], ids=["30%", "60%", "90%", "read"]
)
def test_node_killed_while_rows_are_prepared_costs_no_row_and_no_bit(
    head: Head, source: Path, undisturbed: DatasetVersion, tmp_path: Path, moment: Callable[[dict[str, Any]], bool]
) -> None:
    found = prepare(head, source, tmp_path, moment)
    assert found.num_again > 0, "the fault must have happened, and cost something"
    assert found.record == undisturbed, "the digests of all shards are the same"
    store = open_store(str(tmp_path))
    ids = [load_rows(store, found.record, split).columns["id"] for split in found.record.splits]
    assert np.array_equal(np.sort(np.concatenate(ids)), np.arange(NUM_ROWS)), "every row exactly once"


def test_node_killed_between_two_cuts_of_the_rows_costs_no_row_and_no_bit(
    head: Head, source: Path, undisturbed: DatasetVersion, tmp_path: Path
) -> None:
    found = prepare(head, source, tmp_path, has_read, fanout=2)
    assert found.moved > 1.8, "the rows must have been cut twice"
    assert found.num_again > 0 and found.record == undisturbed
