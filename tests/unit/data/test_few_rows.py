"""The few rows of a request: the same bits, and the same refusals, as the many rows of a shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms import few_rows as room
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.testing.contracts import TRANSFORM_COLUMNS, TransformContract
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples
from tests.unit.data.transforms import transforms

RANDOM = np.random.default_rng(5)
NUM = 200
KINDS_OF_COLUMNS: tuple[tuple[str, dict[str, Any], np.ndarray], ...] = (
    ("age", {"dtype": "float64"}, RANDOM.normal(40, 9, NUM)),
    ("city", {"dtype": "string"}, np.array(["Bonn", "Köln", "10", ""], object)[RANDOM.integers(0, 4, NUM)]),
    ("rooms", {"dtype": "int64"}, RANDOM.integers(-3, 4, NUM)),
    ("height", {"dtype": "float32"}, RANDOM.normal(1.7, 0.2, NUM).astype(np.float32)),
    (
        "gaps",
        {"dtype": "float64", "nullable": True},
        np.where(RANDOM.random(NUM) < 0.3, np.nan, 1.0 * np.arange(NUM)),
    ),
    ("zone", {"dtype": "int16"}, RANDOM.integers(0, 5, NUM).astype(np.int16)),
    ("flag", {"dtype": "bool"}, RANDOM.integers(0, 2, NUM).astype(bool)),
    (
        "street",
        {"dtype": "string", "nullable": True},
        np.array(["a", "b", None], object)[RANDOM.integers(0, 3, NUM)],
    ),
    ("income", {"dtype": "float64"}, RANDOM.exponential(1e3, NUM)),
    ("plain", {"dtype": "uint8"}, RANDOM.integers(0, 256, NUM).astype(np.uint8)),
    ("curve", {"dtype": "float32", "shape": (3,)}, RANDOM.normal(size=(NUM, 3)).astype(np.float32)),
)
COLUMNS = {name: (Column(name=name, **fields), values) for name, fields, values in KINDS_OF_COLUMNS}
SPECS = (
    {"kind": "impute", "columns": ["gaps"], "strategy": "median"},
    {"kind": "impute", "columns": ["street"], "strategy": "most_frequent"},
    {"kind": "scale", "columns": ["height", "income"], "factor": 1 / 3, "offset": -1e-3},
    {"kind": "standardize", "columns": ["age", "height", "gaps", "curve"]},
    {"kind": "min_max", "columns": ["rooms", "flag"], "feature_range": [-1, 2]},
    {"kind": "robust", "columns": ["income"]},
    {"kind": "one_hot", "columns": ["city", "street"]},
    {"kind": "ordinal", "columns": ["zone"]},
)
INPUTS = tuple(column for column, _ in COLUMNS.values())
FITTED = fit_columns(transforms(*SPECS), INPUTS, [{name: values for name, (_, values) in COLUMNS.items()}])


def taken(rows: Any, columns: dict[str, tuple[Column, np.ndarray]] = COLUMNS) -> dict[str, Any]:
    return {name: values[rows] for name, (_, values) in columns.items()}


def by_column(fitted: FittedTransforms, columns: dict[str, Any], inputs: tuple[Column, ...]) -> np.ndarray:
    """The way of many rows: inputs in a list are never kept, so that nothing is worked out for them."""
    return fitted.apply(columns, list(inputs))


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape and found.flags.c_contiguous
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_table_of_all_sorts_goes_the_way_of_few_rows():
    way = FITTED._few_rows(INPUTS)
    assert way is not None and way.apply(taken(slice(3))) is not None
    assert way.apply(taken(slice(room.MAX_ROWS + 1))) is None


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 63, 64, 65, 200])
def test_rows_get_the_same_bits_in_any_number(num_rows: int):
    rows = taken(slice(num_rows))
    assert_same_bits(FITTED.apply(rows, INPUTS), by_column(FITTED, rows, INPUTS))
    assert_same_bits(FITTED.apply_exact(rows, INPUTS), FITTED.apply_exact(rows, list(INPUTS)))
    if num_rows:
        whole = by_column(FITTED, taken(slice(None)), INPUTS)
        assert_same_bits(FITTED.apply(taken(slice(num_rows - 1, num_rows)), INPUTS), whole[num_rows - 1 : num_rows])


@settings(max_examples=examples(200))
@given(data=st.data())
def test_any_numbers_get_the_same_bits_or_the_same_refusal(data: st.DataObject):
    num_rows = data.draw(st.integers(1, 4))
    rows = taken(slice(num_rows))
    for name in data.draw(st.lists(st.sampled_from(["age", "gaps", "income", "rooms", "plain", "city", "zone"]))):
        strange = st.sampled_from(
            {
                "city": ["Bonn", "Paris", None, "\ud800", "", 3, np.nan],
                "rooms": [0, -1, 2**53 + 1, -(2**63)],
                "plain": [0, 255],
                "zone": [0, 4, 77],
            }.get(name, [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-320, 1e38, 3.5e38, 1e300, -1e300, 3.4028235e38])
        )
        values = data.draw(st.lists(strange, min_size=num_rows, max_size=num_rows))
        rows[name] = np.array(values, rows[name].dtype)
    with np.errstate(all="ignore"):
        found, expected = (outcome(lambda i=i: FITTED.apply(rows, i)) for i in (INPUTS, list(INPUTS)))
    if isinstance(expected, str):
        assert found == expected
    else:
        assert isinstance(found, np.ndarray)
        assert_same_bits(found, expected)


def outcome(ask: Any) -> np.ndarray | str:
    try:
        return ask()
    except DataError as error:
        return str(error)


def test_columns_in_other_types_get_the_same_bits():
    rows = taken(slice(4))
    for name, values in {
        "age": np.array([1, 2, 3, 4]),
        "height": np.array([1.5, -0.0, 0.0, 2.0]),
        "rooms": np.array([1.0, -0.0, 2.0, 3.0]),
        "zone": np.array([1, 2, 3, 4], np.uint64),
        "city": pa.array(["Bonn", "Köln", "10", ""]),
        "plain": np.array([1, 2, 3, 4], object),
        "income": np.arange(8.0)[::2],
    }.items():
        changed = {**rows, name: values}
        assert_same_bits(FITTED.apply(changed, INPUTS), by_column(FITTED, changed, INPUTS))


def test_columns_of_several_lengths_are_never_spread_over_the_rows():
    rows = taken(slice(3))
    for name in ("rooms", "city", "plain"):
        with pytest.raises(ValueError, match="must match exactly"):
            FITTED.apply({**rows, name: rows[name][:1]}, INPUTS)


@pytest.mark.parametrize("name", TransformContract.usable_examples())
def test_every_kind_gets_the_same_bits_for_few_rows(name: str):
    for fields in TransformContract.examples[name]:
        for spread in (1, 2):  # a column by itself, and two of a kind side by side
            inputs, columns, spec = doubled(fields, spread)
            fitted = fit_columns(transforms({"kind": name, **spec}), inputs, [columns])
            for rows in (slice(0, 1), slice(0, 5), slice(7, 8)):
                few = {key: values[rows] for key, values in columns.items()}
                found, expected = (outcome(lambda i=i, f=few, t=fitted: t.apply(f, i)) for i in (inputs, list(inputs)))
                if isinstance(expected, str):
                    assert found == expected
                else:
                    assert_same_bits(np.asarray(found), expected)


def doubled(fields: dict[str, Any], spread: int) -> tuple[tuple[Column, ...], dict[str, np.ndarray], dict[str, Any]]:
    """Each column of an example several times under names of its own; crosses stay as they are."""
    copies = 1 if "keep" in fields else spread
    names = {f"{name}{i or ''}": name for i in range(copies) for name in fields["columns"]}
    inputs = tuple(Column(name=own, **TRANSFORM_COLUMNS[name][0]) for own, name in names.items())
    return inputs, {own: TRANSFORM_COLUMNS[name][1] for own, name in names.items()}, {**fields, "columns": list(names)}


def test_other_inputs_are_worked_out_anew():
    first, second = INPUTS, tuple(reversed(INPUTS))
    for inputs in (first, second, first):
        assert_same_bits(FITTED.apply(taken(slice(2)), inputs), by_column(FITTED, taken(slice(2)), inputs))
