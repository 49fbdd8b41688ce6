"""Rows that are wrong are set aside: all of them, and no other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.checks.bad_rows import BadRows, refuse_too_many
from raypipe.data.checks.examine import exact_values, examine, good_rows, keep_good
from raypipe.data.checks.expectations import bad_reasons, violations
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.checks.verdicts import notes
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.unit.data.expectations import NAN, as_values, dtypes_of, parsed, results


def test_only_quarantine_makes_bad_rows_and_the_reason_names_column_and_rule():
    values = as_values({"age": np.array([-1, 3]), "name": ["", "x"]})
    expectations = parsed(
        {"kind": "range", "columns": ["age"], "min": 0},
        {"kind": "length", "columns": ["name"], "min": 1, "on_fail": "quarantine"},
    )
    ((rows, reason),) = bad_reasons(violations(values, dtypes_of(values), expectations), expectations)
    assert rows.tolist() == [True, False] and reason == "'name' does not have a length at least 1"


NUM_ROWS, NUM_POISONED = 20_000, 200


def poisoned():
    """20,000 rows of which 200, 25 of each of 8 kinds, are wrong."""
    rng = np.random.default_rng(1)
    columns = {
        "age": rng.integers(0, 100, NUM_ROWS).astype(float).tolist(),
        "pay": rng.normal(1000, 100, NUM_ROWS).tolist(),
        "code": [f"{v:05d}" for v in rng.integers(0, 99_999, NUM_ROWS)],
        "city": rng.choice(["Ulm", "Bonn", "Köln"], NUM_ROWS).tolist(),
        "note": ["as ever"] * NUM_ROWS,
        "v": rng.normal(size=(NUM_ROWS, 3)).tolist(),
        "y": rng.choice(["yes", "no"], NUM_ROWS).tolist(),
    }
    poison = [
        ("code", "12 pieces"),  # the wrong type, in a column of numbers kept as text
        ("pay", NAN),
        ("pay", float("inf")),
        ("city", None),
        ("age", 1000.0),
        ("note", "x" * 5000),
        ("y", "perhaps"),
        ("v", [1.0, 2.0]),
    ]
    where = rng.permutation(NUM_ROWS)[:NUM_POISONED]
    for i, position in enumerate(where):
        name, value = poison[i % len(poison)]
        columns[name][position] = value
    return columns, set(where.tolist())


def test_poisoned_rows_are_found_all_of_them_and_no_other():
    columns, wrong = poisoned()
    spec = DataSpec.model_validate(
        {
            "source": {"format": "parquet", "path": "f"},
            "target": "y",
            "bad_rows": {"max_frac": 0.01},
            "expectations": [
                {"kind": "matches", "columns": ["code"], "regex": r"\d+", "on_fail": "quarantine"},
                {"kind": "range", "columns": ["age"], "min": 0, "max": 150, "on_fail": "quarantine"},
                {"kind": "length", "columns": ["note"], "max": 100, "on_fail": "quarantine"},
                {"kind": "in_set", "columns": ["y"], "values": ["yes", "no"], "on_fail": "quarantine"},
            ],
        }
    )
    block = pa.table(columns)
    schema = schema_of(spec, [types_of(block)])
    values, reasons = examine(block, schema)
    exact = exact_values(block, schema, values)
    found = violations(exact, schema.expected, spec.expectations, good_rows(block.num_rows, reasons))
    kept, bad = keep_good(block, values, reasons + bad_reasons(found, spec.expectations), schema)

    assert {row["position"] for row in bad.kept} == wrong and bad.num_rows == NUM_POISONED
    good = [i for i in range(NUM_ROWS) if i not in wrong]
    assert pa.array(kept["code"]).to_pylist() == [columns["code"][i] for i in good]
    by_reason = {}
    for row in bad.kept:
        by_reason.setdefault(row["reason"], []).append(row["position"])
    assert sorted(len(positions) for positions in by_reason.values()) == [25] * 8
    refuse_too_many(bad, NUM_ROWS, 0.01)
    numbered = BadRows(bad.num_rows, [{"row_number": row["position"] + 1, **row} for row in bad.kept])
    with pytest.raises(DataError, match="200 of 20000 rows break the schema or an expectation"):
        refuse_too_many(numbered, NUM_ROWS, 0.0099)


def test_too_many_rows_set_aside_by_a_wrong_regex_tell_that_it_is_wrong():
    columns = {"name": ["A", "B"]}
    fields = {"kind": "matches", "columns": ["name"], "regex": "[a-z]", "on_fail": "quarantine"}
    bad = BadRows(2, [{"row_number": 1, "reason": "...", "row": {"name": "A"}}])
    with pytest.raises(DataError, match=r"2 of 2 rows break it.*no row matches"):
        refuse_too_many(bad, 2, 0.1, notes(results(columns, fields)))
