"""Bad rows take more from one class than from another, and that is told before anybody allows more of them."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from raypipe.data.checks.bad_rows import BadRows, refuse_too_many
from raypipe.data.checks.losses import Losses, Targets
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.unit.data.helpers import check, reader, sized_file

UNEVEN = Losses("y", Targets(Counter(no=50, yes=350)), Targets(Counter(no=950, yes=650)))


def spec(source=None, **fields):
    return DataSpec.model_validate(
        {"source": {"format": "csv", "path": "f.csv", **(source or {})}, "target": "y", **fields}
    )


def refused(losses, bad=None, remedy=()):
    with pytest.raises(DataError) as caught:
        refuse_too_many(bad or BadRows(400), 2000, 0.1, losses=losses, remedies=remedy)
    return caught.value


def test_classes_that_bad_rows_hit_are_told_with_their_shares_beside_the_advice_to_allow_more():
    error = refused(UNEVEN)
    assert "each 'y' that is lost with them: 'yes' 35.0% (350 of 1000), 'no' 5.0% (50 of 1000)" in error.message
    assert "raise data.bad_rows.max_frac" in error.hint and UNEVEN.is_uneven


@pytest.mark.parametrize(
    "losses",
    [None, Losses("y", Targets(), Targets()), Losses("y", Targets(Counter(no=5), num_unknown=395), Targets())],
    ids=["nothing is known", "no target is known", "some targets could not be read"],
)
def test_allowing_more_bad_rows_is_not_advised_where_nobody_knows_what_goes_with_them(losses):
    error = refused(losses)
    assert "raise" not in error.hint and error.hint


def test_rows_that_could_not_be_read_are_told_as_of_unknown_class():
    error = refused(Losses("y", Targets(Counter(no=5), num_unknown=395), Targets(Counter(no=100, yes=1000))))
    assert "what 'y' is in 395 of them could not be read" in error.message


@pytest.mark.parametrize(
    ("aside", "kept", "is_uneven"),
    [
        ({"a": 10, "b": 12}, {"a": 990, "b": 988}, False),
        ({"a": 0, "b": 30}, {"a": 1000, "b": 970}, True),
        ({"a": 0, "b": 2}, {"a": 10, "b": 8}, False),  # chance
        ({"rare": 9}, {"often": 100_000, "rare": 1}, True),
        ({}, {"a": 5, "b": 5}, False),
    ],
)
def test_uneven_is_what_chance_does_not_do(aside, kept, is_uneven):
    assert Losses("y", Targets(Counter(aside)), Targets(Counter(kept))).is_uneven is is_uneven


def test_of_many_classes_those_that_lose_most_and_the_least_are_told():
    aside, kept = Counter({i: i for i in range(100)}), Counter({i: 1000 for i in range(100)})
    (line,) = Losses("y", Targets(aside), Targets(kept)).lines()
    assert line.index(" 99 ") < line.index(" 98 ") < line.index("95 more") < line.index(" 0 0.0% (0 of 1000)")


def test_regression_tells_the_means_of_rows_that_are_lost_and_that_stay():
    losses = Losses("y", Targets(sum=1000.0, num=10), Targets(sum=90.0, num=9))
    assert losses.lines() == ["the mean of 'y' is 100 in them and 10 in the others"]
    assert "raise data.bad_rows.max_frac" in refused(losses).hint


def latin_1(path, form):
    """1000 rows of two classes, of which those with a ü are no UTF-8: every third `yes`, every tenth `nö`."""
    is_hit = [i % 3 == 0 if i % 2 else i % 20 == 0 for i in range(1000)]
    rows = [(i, "für" if hit else "for", "yes" if i % 2 else "nö") for i, hit in enumerate(is_hit)]
    if form == "csv":
        lines = ["n,t,y\n", *(f'{n},"{t}, or\nso",{y}\n' for n, t, y in rows)]
    else:
        lines = ["", *(f'{{"n": {n}, "t": "{t}", "y": "{y}"}}\n' for n, t, y in rows)]
    path.write_bytes(b"".join(line.encode("latin-1" if "ü" in line else "utf-8") for line in lines))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_that_are_no_utf8_are_known_by_their_class(tmp_path, form):
    latin_1(tmp_path / f"f.{form}", form)
    (table,) = reader(form)(sized_file(tmp_path / f"f.{form}"))
    data = spec({"format": form})
    schema = schema_of(data, [types_of(table)])
    values, bad = check(table, schema)
    assert bad.num_rows == 217 and len(values["n"]) == 783 and bad.reasons == {"is no UTF-8 text": 217}
    assert bad.targets == Targets(Counter({"yes": 167, "nö": 50}))
    assert bad.kept[0]["row"]["n"] == 0 and "für" in bad.kept[0]["row"]["t"]
    assert remedies(bad, data) == [
        "save the file as UTF-8, e.g. iconv -f latin1 -t utf-8, or, for CSV, name its data.source.encoding"
    ]


def test_rows_that_cannot_be_read_at_all_have_an_unknown_class(tmp_path):
    (tmp_path / "f.csv").write_bytes(b"a,y\n1,u\n2,u,3\n\xff,v\n4\n5,v\n")
    (table,) = reader("csv")(sized_file(tmp_path / "f.csv"))
    _, bad = check(table, schema_of(spec(), [types_of(table)]))
    assert bad.targets == Targets(Counter({"v": 1}), num_unknown=2)


def test_values_of_rows_that_are_no_utf8_never_change_a_type(tmp_path):
    (tmp_path / "f.csv").write_bytes(b"a,b,y\n1,true,0\n\xff,\xfe,x\n2.5\xa0,false,1.5\n2,false,1\n")
    (table,) = reader("csv", dtypes={"y": "int64"})(sized_file(tmp_path / "f.csv"))
    assert [str(table.schema.field(name).type) for name in ("a", "b", "y")] == ["int64", "bool", "int64"]
    assert table["y"].to_pylist() == [0, None, None, 1] and table["b"].to_pylist() == [True, None, False, False]
    assert table[BAD].null_count == 2


# --- what helps ------------------------------------------------------------------------------------------------------


def advice(columns, **fields):
    table, data = pa.table(columns), spec(**fields)
    _, bad = check(table, schema_of(data, [types_of(table)]))
    return remedies(bad, data)


def test_missing_target_is_not_imputed():
    (text,) = advice({"a": [1, 2], "y": [None, 1]})
    assert "never imputed" in text and "data.source.where: [{column: y, op: not_null}]" in text


def test_each_reason_has_its_own_remedy():
    columns = {"a": [None, 1.0, 2.0], "b": [None, "u", "v"], "k": [1, None, 2], "y": [0, 1, None]}
    texts = advice(columns, split={"key": ["k"]})
    assert texts[0] == "add an `impute` transform (of text: strategy most_frequent) for 'a', 'b'"
    assert any("give 'k' in every row" in text for text in texts) and len(texts) == 3
    (text,) = advice({"a": [float("inf"), 1.0], "y": [0, 1]})
    assert "impute" not in text and "mend the rows" in text


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        ("csv", "a,y\nx,0\n1,1\n", "null_values"),
        ("csv", "a,y\n1,0,7\n1,1\n", "as many values as the header"),
        ("jsonl", '{"a":1,"y":0}\n{"a":2,"y":1}\n{"a":"x","y":0}\n', "one type in each field"),
        ("jsonl", '{"a":1,"y":0}\n{"a":2,"y":1}\n{"a":3 "y":0}\n', "cannot be read"),
    ],
)
def test_rows_that_could_not_be_read_have_the_remedy_of_what_their_format_says(tmp_path, form, text, wanted):
    (tmp_path / f"f.{form}").write_text(text)
    dtypes = {"dtypes": {"a": "int64"}} if form == "csv" else {}
    (table,) = reader(form, **dtypes)(sized_file(tmp_path / f"f.{form}"))
    _, bad = check(table, schema_of(spec(), [types_of(table)]))
    (found,) = remedies(bad, spec())
    assert wanted in found
