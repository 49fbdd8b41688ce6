"""What the driver keeps of the blocks does not grow with their number."""

from __future__ import annotations

import json
import math
from collections import Counter

import pyarrow as pa
import pytest

from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, to_lines
from raypipe.data.checks.classes import MAX_CLASSES
from raypipe.data.checks.schema import BlockTypes, schema_of, types_of
from raypipe.data.shuffle.read_all import Block
from raypipe.data.shuffle.row_ranges import PIECE_BYTES
from raypipe.data.shuffle.scatter import BlockSummary, ScatterJob, ScatterSummary, scatter_blocks
from raypipe.data.shuffle.scattered import Scattered
from raypipe.data.shuffle.task_size import TaskSize, neighbours
from raypipe.data.table.packing import from_buffer
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec

MIB = 2**20
FIELDS = {"source": {"format": "csv", "path": "f.csv"}, "target": "y"}
SPEC = DataSpec.model_validate(FIELDS)
PART = SPEC.parts()[0]


def block(num_bad=0, labels=()):
    kept = [{"position": i, "reason": "wrong", "row": {"a": i}} for i in range(num_bad)]
    profile = BlockTypes("f.csv", 1000, {}, {})
    return BlockSummary(profile, True, 1000 - num_bad, BadRows(num_bad, kept), labels=Counter(labels))


def cut(*blocks):
    made = Scattered(ScatterJob(SPEC, None, ()))
    made.parts += SPEC.parts() * len(blocks)
    for one in blocks:
        made.add([ScatterSummary([one], [])])
    return made


def test_bad_rows_of_many_blocks_are_all_counted_and_the_first_are_kept_with_their_numbers():
    made = cut(block(), *(block(400) for _ in range(10)))
    bad = made.bad()
    assert bad.num_rows == 4000 and sum(len(one.bad.kept) for one in made.blocks) == MAX_KEPT == len(bad.kept)
    assert [row["row_number"] for row in (bad.kept[0], bad.kept[399], bad.kept[400])] == [1001, 1400, 2001]


def test_bad_rows_are_kept_as_json_with_null_for_what_json_has_no_number_for():
    row = {"a": math.nan, "b": [[1.5, -math.inf], {"c": math.inf}], "d": "NaN", "e": 2}
    lines = to_lines(BadRows(1, [{"row_number": 1, "reason": "'a' is missing", "row": row}]))
    kept = json.loads(lines, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert kept["row"] == {"a": None, "b": [[1.5, None], {"c": None}], "d": "NaN", "e": 2}


def test_block_alone_of_another_type_is_checked_against_the_schema_of_all_blocks():
    whole, fractions = (pa.table({"a": values, "y": [0, 1]}) for values in ([1, 2], [0.5, 1.0]))
    schema = schema_of(SPEC, [types_of(whole), types_of(fractions)])
    for others, is_checked in ((None, True), ((), False)):
        summary, _, piece = scatter_blocks(ScatterJob(SPEC, schema, others), 1, "source", None, whole)
        assert summary.blocks[0].is_checked is is_checked
        assert piece is None or from_buffer(piece).schema.field("a").type == pa.float64()


def test_pieces_of_few_rows_do_not_take_along_all_texts_of_their_block():
    texts = [f"{i:07d}" for i in range(2000)]
    whole = pa.table({"a": texts * 3, "y": [0, 1] * 3000})
    for num_ranges in (4, 64):
        order = ScatterJob(SPEC, schema_of(SPEC, [types_of(whole)]), None)
        _, _, *pieces = scatter_blocks(order, num_ranges, "source", None, whole)
        found = [from_buffer(piece) for piece in pieces]
        assert sorted(text for piece in found for text in piece["a"].to_pylist()) == sorted(texts * 3)
        assert sum(piece.size for piece in pieces) < 6000 * 40 + num_ranges * 2000


def test_labels_of_all_blocks_are_counted_once_and_too_many_are_refused():
    assert cut(block(labels="aab"), block(labels="bc")).labels == {"a": 2, "b": 2, "c": 1}
    half = MAX_CLASSES // 2 + 1
    with pytest.raises(DataError, match="no classes"):
        cut(block(labels=range(half)), block(labels=range(half, 2 * half)))


def blocks(sizes, part=PART):
    return [Block(i, size, part) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("told_bytes", [40, 400, 10_000, 500_000])
@pytest.mark.parametrize("block_bytes", [1, 16, 64])
def test_neighbouring_blocks_go_to_one_task_so_that_no_piece_is_small_enough_for_the_drivers_memory(
    told_bytes, block_bytes
):
    size = TaskSize(told_bytes * MIB)
    sizes = [block_bytes * MIB] * (min(told_bytes, 2000) // block_bytes)
    tasks = list(neighbours(blocks(sizes), size))
    assert [block.ref for task in tasks for block in task] == list(range(len(sizes)))
    for task in tasks[:-1]:
        num_bytes = sum(block.num_bytes for block in task)
        assert num_bytes // size.decide(num_bytes) >= PIECE_BYTES
        assert num_bytes < size.block_bytes + block_bytes * MIB
    assert told_bytes // (size.block_bytes // MIB) <= 2000, "references stay few"


def test_tasks_take_more_blocks_where_little_is_left_of_them_in_pieces():
    size = TaskSize(10**10)
    before = size.block_bytes
    size.add(1000, 500)
    assert size.block_bytes == 2 * before


def test_neighbouring_blocks_of_two_sources_go_to_two_tasks():
    spec = DataSpec.model_validate(
        {**FIELDS, "split": {"test_frac": 0}, "test_source": {"format": "csv", "path": "t.csv"}}
    )
    first, second = spec.parts()
    tasks = neighbours([*blocks([1, 1], first), *blocks([1], second)], TaskSize(10**10))
    assert [[block.part for block in task] for task in tasks] == [[first, first], [second]]


@pytest.mark.parametrize(
    ("told_bytes", "first_bytes", "num_ranges"),
    [(0, 5 * MIB, 1), (0, 70 * MIB, 64), (10 * MIB, 64 * MIB, 64), (500 * MIB, 64 * MIB, 8), (10**12, 64 * MIB, 64)],
)
def test_number_of_ranges_is_what_files_tell_unless_the_first_task_shows_that_they_tell_too_little(
    told_bytes, first_bytes, num_ranges
):
    size = TaskSize(told_bytes)
    assert size.decide(first_bytes) == num_ranges == size.decide(10**12)


def test_different_rows_of_all_blocks_are_kept_once():
    table = pa.table({"a": [1, 2, 3, 1], "y": [0, 1, 0, 0]})
    job = ScatterJob(SPEC, schema_of(SPEC, [types_of(table)]), None)
    made = cut(*(scatter_blocks(job, 1, "source", None, table)[0].blocks[0] for _ in range(5)))
    assert made.different.num_rows == 20 and sorted(made.different.copies) == [5, 5, 10]
    assert all(one.different is None for one in made.blocks)
