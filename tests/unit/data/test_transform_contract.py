from __future__ import annotations

from typing import get_args

import pytest

from raypipe.data.shuffle.recognise import OF_TEXT
from raypipe.data.transforms import KINDS
from raypipe.spec.transforms import Transform, with_unknown
from raypipe.testing.contracts import TransformContract
from raypipe.testing.contracts.transforms import TRANSFORM_COLUMNS


def variants() -> dict[str, type]:
    return {get_args(v.model_fields["kind"].annotation)[0]: v for v in get_args(get_args(Transform)[0])}


def test_table_spec_and_examples_hold_the_same_kinds():
    assert set(KINDS) == set(variants()) == set(TransformContract.examples)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("check", TransformContract.checks())
def test_every_kind_keeps_the_contract(name: str, check: str):
    if name not in TransformContract.usable_examples():
        pytest.skip(f"needs {TransformContract.packages[name]}, an extra of raypipe")
    getattr(TransformContract(name), check)()


def test_kinds_whose_examples_take_texts_are_those_that_keep_columns_of_csv_files_texts():
    of_text = {name for name, (fields, _) in TRANSFORM_COLUMNS.items() if fields["dtype"] == "string"}
    taken = {
        kind: {n for each in examples for n in each["columns"]} for kind, examples in TransformContract.examples.items()
    }
    assert {kind for kind, names in taken.items() if names & of_text} == OF_TEXT


def test_policy_reaches_every_kind_that_may_meet_an_unknown_category():
    for kind, variant in variants().items():
        assert ("unknown" in variant.model_fields) == ("unknown" in with_unknown({"kind": kind}, "ignore"))
