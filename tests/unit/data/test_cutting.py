"""What the driver keeps of the blocks does not grow with their number."""

from __future__ import annotations

import json
import math
from collections import Counter

import pyarrow as pa
import pytest

from raypipe.data.checks.bad_rows import MAX_KEPT, BadRows, to_lines
from raypipe.data.checks.schema import MAX_CLASSES, BlockTypes, schema_of, types_of
from raypipe.data.shuffle.blocks import BlockOrder, BlockSummary, cut_block
from raypipe.data.shuffle.cutting import Cut
from raypipe.data.table.packing import from_buffer
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec

SPEC = DataSpec.model_validate({"source": {"format": "csv", "path": "f.csv"}, "target": "y"})


def block(num_bad=0, labels=()):
    kept = [{"position": i, "reason": "wrong", "row": {"a": i}} for i in range(num_bad)]
    profile = BlockTypes("f.csv", 1000, {}, {})
    return BlockSummary(profile, True, 1000 - num_bad, BadRows(num_bad, kept), labels=Counter(labels))


def cut(*blocks):
    made = Cut(BlockOrder(SPEC, None, (), 1))
    made.parts += SPEC.parts() * len(blocks)
    for one in blocks:
        made.add([one])
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
        summary, _, piece = cut_block(whole, BlockOrder(SPEC, schema, others, 1), "source", None)
        assert summary.is_checked is is_checked
        assert piece is None or from_buffer(piece).schema.field("a").type == pa.float64()


def test_pieces_of_few_rows_do_not_take_along_all_texts_of_their_block():
    texts = [f"{i:07d}" for i in range(2000)]
    whole = pa.table({"a": texts * 3, "y": [0, 1] * 3000})
    for num_ranges in (4, 64):
        order = BlockOrder(SPEC, schema_of(SPEC, [types_of(whole)]), None, num_ranges)
        _, _, *pieces = cut_block(whole, order, "source", None)
        found = [from_buffer(piece) for piece in pieces]
        assert sorted(text for piece in found for text in piece["a"].to_pylist()) == sorted(texts * 3)
        assert sum(piece.size for piece in pieces) < 6000 * 40 + num_ranges * 2000


def test_labels_of_all_blocks_are_counted_once_and_too_many_are_refused():
    assert cut(block(labels="aab"), block(labels="bc")).labels == {"a": 2, "b": 2, "c": 1}
    half = MAX_CLASSES // 2 + 1
    with pytest.raises(DataError, match="no classes"):
        cut(block(labels=range(half)), block(labels=range(half, 2 * half)))
