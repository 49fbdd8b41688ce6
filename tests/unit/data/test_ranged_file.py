"""A file that is read in ranges: how few, and how errors come through."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.sources.ranged import AHEAD_FROM_BYTES, FIRST_BYTES, MAX_BYTES, RangedFile
from raypipe.errors import SourceChanged
from raypipe.spec.sources import CsvSource, ParquetSource

CSV = CsvSource(format="csv", path="unused")
PARQUET = ParquetSource(format="parquet", path="unused")


class Counting:
    """Bytes that are read in ranges, each of which is noted."""

    def __init__(self, data):
        self.data, self.ranges, self.lock = data, [], threading.Lock()

    def __call__(self, start, stop):
        assert 0 <= start < stop <= len(self.data)
        with self.lock:
            self.ranges.append((start, stop))
        return memoryview(self.data)[start:stop]

    def open(self):
        return RangedFile(self, len(self.data))


@pytest.fixture(scope="module")
def data():
    return random.Random(0).randbytes(100 * 2**20)


def test_ranged_file_read_from_start_to_end_costs_few_requests_and_none_twice(data):
    counting = Counting(data)
    with counting.open() as file:
        pieces = list(iter(lambda: file.read(2**16), b""))
    assert b"".join(pieces) == data
    assert len(counting.ranges) <= 3 + len(data) // MAX_BYTES + 1
    assert sum(stop - start for start, stop in counting.ranges) == len(data)
    assert max(stop - start for start, stop in counting.ranges) <= MAX_BYTES


def test_ranged_file_fetches_little_more_than_scattered_reads_ask_for(data):
    counting = Counting(data)
    with counting.open() as file:
        for place in (len(data) - 2**16, 0, 50 * 2**20, 20 * 2**20):
            file.seek(place)
            assert file.read(100) == data[place : place + 100]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
    assert len(counting.ranges) == 5
    assert all(stop - start <= FIRST_BYTES for start, stop in counting.ranges)


def test_ranged_file_large_read_is_one_request(data):
    counting = Counting(data)
    with counting.open() as file:
        assert file.read(64 * 2**20) == data[: 64 * 2**20]
    assert counting.ranges == [(0, 64 * 2**20)]


def test_ranged_file_reads_on_while_the_caller_works_and_stops_when_closed(data):
    counting = Counting(data)
    file = counting.open()
    while file.tell() < 8 * 2**20:
        file.read(2**16)
    held = max(stop for _, stop in counting.ranges)
    assert held >= 8 * 2**20 and any(stop - start > AHEAD_FROM_BYTES for start, stop in counting.ranges)
    assert held - file.tell() <= 2 * MAX_BYTES
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_ranged_file_as_an_arrow_file_serves_many_threads(data):
    counting = Counting(data[: 8 * 2**20])
    draw = random.Random(3)
    wanted = [(draw.randrange(2**16), draw.randrange(8 * 2**20)) for _ in range(400)]
    with pa.PythonFile(counting.open(), mode="r") as file, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda want: file.read_at(*want), wanted))
    assert found == [counting.data[start : start + size] for size, start in wanted]


def test_ranged_file_that_fails_ahead_tells_it_when_it_gets_there(data):
    def read_range(start, stop):
        if stop > 20 * 2**20:
            raise SourceChanged("f changed", "run again")
        return memoryview(data)[start:stop]

    with RangedFile(read_range, len(data)) as file:
        while file.tell() < 5 * 2**20:
            file.read(2**16)
        with pytest.raises(SourceChanged, match="f changed"):
            file.read()


def test_ranged_file_error_comes_through_arrow_as_it_is():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": random.Random(0).choices(range(2**40), k=2**17)}), sink, row_group_size=2**12)
    data = sink.getvalue().to_pybytes()

    def read_range(start, stop):
        if start < len(data) // 2 and stop < len(data):
            raise SourceChanged("f changed", "run again")
        return memoryview(data)[start:stop]

    with pytest.raises(SourceChanged) as caught, pa.PythonFile(RangedFile(read_range, len(data)), mode="r") as handle:
        pq.ParquetFile(handle).read()
    assert caught.value.hint == "run again"
