"""What CSV files tell of themselves: encoding, signs, columns in several files, kinds of texts."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe.data.formats import FORMATS
from raypipe.data.formats.base import ANYTHING, Wanted
from raypipe.data.formats.csv_values import DATES, dates_of
from raypipe.data.formats.datasource import read_group
from raypipe.data.masking import UNMASKED
from raypipe.data.shuffle.recognise import recognise
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import CsvSource
from tests.unit.data.helpers import source


def recognised(folder: Path, wanted: Wanted = ANYTHING, **fields: Any) -> tuple[CsvSource, list[str]]:
    """The CSV files of a folder, and what is told of them."""
    return FORMATS["csv"].recognised([source("csv", path=str(folder), **fields)], ".", UNMASKED, wanted, None)


def rows_of(folder: Path, given: CsvSource) -> list[dict[str, Any]]:
    parts, read_part = FORMATS["csv"].plan(given, ".", is_judged=True)
    return [row for table in read_group(parts, read_part, None, is_judged=True) for row in table.to_pylist()]


def spec(folder: Path, **fields: Any) -> DataSpec:
    given = {"source": {"format": "csv", "path": str(folder)}, "target": "y", "root": str(folder)}
    return DataSpec.model_validate({**given, **fields})


def write(folder: Path, **files: str | bytes) -> None:
    for name, text in files.items():
        (folder / f"{name}.csv").write_bytes(text.encode() if isinstance(text, str) else text)


# --- several files ---------------------------------------------------------------------------------------------------


def test_columns_in_other_orders_in_several_files_are_each_recognised_once(tmp_path):
    write(
        tmp_path,
        a="x;price;zip;y\n1,5;12 €;01067;a\n",
        b="y;zip;price;x\nb;53111;7 €;2,25\n",
        c="zip;y;x;price\n89073;a;3;8,50 €\n",
    )
    found, lines = recognised(tmp_path)
    assert found.decimal_point == "," and found.signs == {"price": "€"}
    assert found.dtypes == {"zip": "string", "price": "float64"}
    assert len([line for line in lines if line.startswith("column 'price'")]) == 1
    values = [(row["x"], row["price"], row["zip"], row["y"]) for row in rows_of(tmp_path, found)]
    assert values == [(1.5, 12.0, "01067", "a"), (2.25, 7.0, "53111", "b"), (3.0, 8.5, "89073", "a")]


def test_fraction_that_may_be_thousands_is_told_by_a_file_where_the_column_stands_elsewhere(tmp_path):
    write(tmp_path, a="n;m;y\n1.234;1;a\n", b="y;m;n\nb;2;5.678\n")
    with pytest.raises(DataError, match=r"column 'n' holds '1.234', which may be a fraction or thousands"):
        recognised(tmp_path)
    write(tmp_path, c="m;y;n\n3;a;0.5\n")  # a point that stands before a fraction
    found, _ = recognised(tmp_path)
    assert [row["n"] for row in rows_of(tmp_path, found)] == [1.234, 5.678, 0.5]


def test_column_that_one_of_several_files_holds_twice_is_read_where_it_is_not_asked_for(tmp_path):
    write(tmp_path, a="n;v;y\n1,5;2;a\n", b="v;y;v;n\n1;b;2;2,5\n", c="y;n;w\na;3,5;4,5\n")
    found, _ = recognised(tmp_path, Wanted(("y",), frozenset({"n", "y"})))
    assert found.decimal_point == ","
    read = found.model_copy(update={"columns": ["n", "y"]})
    assert [(row["n"], row["y"]) for row in rows_of(tmp_path, read)] == [(1.5, "a"), (2.5, "b"), (3.5, "a")]


# --- decimal points --------------------------------------------------------------------------------------------------

MIXED = "lat;price;y\n52.5;1.234,50 €;a\n48.1371;3,99 €;b\n"
"""A shop's prices beside coordinates of a program."""


def test_columns_that_can_be_read_in_one_way_only_are_read_so_though_they_differ(tmp_path):
    write(tmp_path, f=MIXED)
    found, lines = recognised(tmp_path)
    assert (found.decimal_point, found.thousands, found.signs) == ({"price": ","}, ".", {"price": "€"})
    assert lines[0] == 'recognised: delimiter: ";", decimal_point: {"price": ","}, thousands: "."'
    assert [(row["lat"], row["price"]) for row in rows_of(tmp_path, found)] == [(52.5, 1234.5), (48.1371, 3.99)]


@pytest.mark.parametrize(("point", "numbers"), [(".", [1.234, 5.0]), (",", [1234.0, 5.0])])
def test_column_that_may_be_both_is_asked_for_where_others_differ(tmp_path, point, numbers):
    write(tmp_path, f="lat;n;price;y\n52.5;1.234;12,50 €;a\n48.1371;5;3,99 €;b\n")
    with pytest.raises(
        DataError, match=r"column 'n' holds '1\.234', which may be a fraction or thousands: of"
    ) as caught:
        recognised(tmp_path)
    assert """data.source.decimal_point: {"n": '.'}""" in caught.value.hint
    found, _ = recognised(tmp_path, decimal_point={"n": point})
    assert [row["n"] for row in rows_of(tmp_path, found)] == numbers
    assert [row["price"] for row in rows_of(tmp_path, found)] == [12.5, 3.99], "what was certain stays so"


def test_whole_numbers_beside_what_may_be_both_tell_nothing_unless_they_are_long(tmp_path):
    write(tmp_path, f="n;y\n1.234;a\n5;b\n")
    with pytest.raises(DataError, match=r"column 'n' holds '1\.234', which may be a fraction or thousands: cells"):
        recognised(tmp_path)
    write(tmp_path, f="n;y\n1.234;a\n5678;b\n")  # in groups it were 5.678
    assert [row["n"] for row in rows_of(tmp_path, recognised(tmp_path)[0])] == [1.234, 5678.0]


def test_zero_and_three_digits_behind_a_comma_are_a_fraction(tmp_path):
    write(tmp_path, f="part;y\n0,250 %;a\n12,500 %;b\n")
    found, _ = recognised(tmp_path)
    assert [row["part"] for row in rows_of(tmp_path, found)] == [0.25, 12.5]
    write(tmp_path, f="part;y\n1,250 %;a\n12,500 %;b\n")
    found, lines = recognised(tmp_path)
    assert [row["part"] for row in rows_of(tmp_path, found)] == ["1,250 %", "12,500 %"]
    assert "',' may stand between thousands or before a fraction" in lines[1]


def test_numbers_with_other_marks_between_thousands_stay_text_and_are_told(tmp_path):
    write(tmp_path, f="a;b;y\n1.234,5;1,234.5;u\n2.234,5;2,234.5;v\n")
    found, lines = recognised(tmp_path)
    assert [line.partition(" between")[0] for line in lines[1:]] == [
        "column 'a' stays text: in its numbers like '1.234,5' '.' stands",
        "column 'b' stays text: in its numbers like '1,234.5' ',' stands",
    ]
    assert rows_of(tmp_path, found)[0] == {"a": "1.234,5", "b": "1,234.5", "y": "u"}


def test_columns_that_differ_are_read_in_test_files_as_in_the_others(tmp_path):
    for name, text in (("train", MIXED), ("test", "lat;price;y\n1.234;5,00 €;a\n")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f=text)
    given = {"source": {"format": "csv", "path": "train"}, "test_source": {"format": "csv", "path": "test"}}
    found = recognise(spec(tmp_path, **given, split={"kind": "hash", "val_frac": 0, "test_frac": 0}))[0]
    assert isinstance(found.test_source, CsvSource)
    test = found.test_source.model_copy(update={"path": str(tmp_path / "test")})
    assert [(row["lat"], row["price"]) for row in rows_of(tmp_path, test)] == [(1.234, 5.0)]


# --- signs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        (b'a,b\n"x \\"y, z\\" w",1\nu,2\n', {"escape": "\\"}),  # R
        (b"a,b\nx\\,y,1\nu,2\n", {"escape": "\\"}),
        (b"a,b\n'x, y',1\n'u',2\n", {"quote": "'"}),
        (b"a,b\n'x, \\'y\\'',1\n'u',2\n", {"quote": "'", "escape": "\\"}),
        (b'a,b\n"C:\\temp\\",1\nD:\\,2\n', {}),  # rows are alike as they are
        (b"a,b\n'tis,1\nit's,2\n", {}),
        (b"a,b\nx\\,y,1\nu,2,3\nv,4\n", {}),  # nothing makes them alike
    ],
)
def test_quote_and_escape_are_recognised_where_they_alone_make_rows_alike(tmp_path, text, signs):
    write(tmp_path, f=text)
    found, lines = recognised(tmp_path)
    assert {name: getattr(found, name) for name in signs} == signs
    assert (found.quote, found.escape) == (signs.get("quote", '"'), signs.get("escape"))
    assert [line.startswith("recognised: ") for line in lines[:1]] == [True] * bool(signs)


def test_escaped_signs_are_read_as_they_were_meant(tmp_path):
    write(tmp_path, f=b'a,b\n"x \\"y, z\\" w",1\nu\\,v,2\n')
    found, lines = recognised(tmp_path)
    assert [row["a"] for row in rows_of(tmp_path, found)] == ['x "y, z" w', "u,v"]
    assert lines == ['recognised: escape: "\\\\"']


def test_quote_that_is_set_is_never_another(tmp_path):
    write(tmp_path, f=b"a,b\n'x, y',1\n'u',2\n")
    assert recognised(tmp_path, quote='"')[0].quote == '"'


def test_signs_that_other_programs_take_for_line_breaks_do_not_divide_rows(tmp_path):
    write(tmp_path, f="a;b;y\nu\u2028v;1;p\nx\x0by\x85z;2;q\n")
    found, _ = recognised(tmp_path)
    assert found.delimiter == ";"
    assert [row["a"] for row in rows_of(tmp_path, found)] == ["u\u2028v", "x\x0by\x85z"]


def test_lines_to_skip_end_as_the_rows_do(tmp_path):
    write(tmp_path, f=b"title\r\ra,b,y\r1,2,u\r3,4,v\r")
    with pytest.raises(DataError, match="is no header") as caught:
        recognised(tmp_path)
    assert "data.source.skip_lines: 2" in caught.value.hint
    found, _ = recognised(tmp_path, skip_lines=2)
    assert rows_of(tmp_path, found) == [{"a": 1, "b": 2, "y": "u"}, {"a": 3, "b": 4, "y": "v"}]


# --- encodings -------------------------------------------------------------------------------------------------------


def ascii_rows(num_bytes: int) -> bytes:
    row = b"some text,1\n"
    return row * (num_bytes // len(row) + 1)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Köln"),
        ("cp1251", "Пётр, Фёдор и Ёж".replace(",", " ")),  # some pairs of these bytes are UTF-8
        ("shift_jis", "東京と京都"),
        ("gbk", "北京和上海"),
        ("cp1250", "Žižkov Łódź Ľubľana"),
        ("mac-roman", "Zürich Genève"),
    ],
)
@pytest.mark.parametrize("num_bytes", [0, 2**20 + 1, 3 * 2**20])
def test_other_encoding_is_refused_wherever_its_first_byte_is(tmp_path, encoding, text, num_bytes):
    write(tmp_path, f=b"t,y\n" + ascii_rows(num_bytes) + f"{text},2\n".encode(encoding) * 3)
    with pytest.raises(DataError, match=r"f\.csv is no UTF-8 text") as caught:
        rows_of(tmp_path, recognised(tmp_path)[0])
    assert "data.source.encoding" in caught.value.hint


def test_file_that_is_not_looked_at_is_refused_for_its_encoding_all_the_same(tmp_path):
    for number in range(12):
        text = "Köln" if number == 7 else "Ulm"
        (tmp_path / f"{number:02d}.csv").write_bytes(f"t,y\n{text},1\n".encode("cp1252"))
    found, _ = recognised(tmp_path)
    with pytest.raises(DataError, match=r"07\.csv is no UTF-8 text"):
        rows_of(tmp_path, found)


def test_damaged_rows_among_text_beyond_ascii_are_bad_rows(tmp_path):
    write(tmp_path, f=b"t,y\n" + ascii_rows(2**20) + "Köln,1\nBüdingen,2\n".encode() + b"\xff,3\n")
    rows = rows_of(tmp_path, recognised(tmp_path)[0])
    assert [row["y"] for row in rows if row[BAD]] == [3]
    assert [row["t"] for row in rows[-3:-1]] == ["Köln", "Büdingen"]


# --- kinds of texts --------------------------------------------------------------------------------------------------

KINDS = "ok,at,took,long,y\nyes,8:30 AM,1 days 02:00:00,45 min,u\nno,12:15 PM,0 days 00:01:30,3 days,v\n"


def test_true_and_false_times_and_durations_become_numbers_and_are_told(tmp_path):
    write(tmp_path, f=KINDS)
    found, lines = recognised(tmp_path, Wanted(("y",), None, frozenset({"y"})))
    assert found.dtypes == {"ok": "bool", "at": "time", "took": "duration"}
    assert [line.partition(":")[0] for line in lines] == [
        "column 'ok'",
        "column 'at'",
        "column 'took'",
        "column 'long' stays text",
    ]
    assert 'data.source.dtypes: {"long": duration}' in lines[3]
    rows = rows_of(tmp_path, found)
    assert [(row["ok"], row["at"], row["took"]) for row in rows] == [(True, 30600.0, 93600.0), (False, 44100.0, 90.0)]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"target": "ok"}, {"ok"}),
        ({"target": "at", "task": "regression"}, set()),
        ({"transforms": [{"kind": "one_hot", "columns": ["ok", "at"]}]}, {"ok", "at"}),
        ({"transforms": [{"kind": "impute", "columns": ["took"]}]}, set()),
        ({"transforms": [{"kind": "impute", "columns": ["ok"], "strategy": "constant", "value": "no"}]}, {"ok"}),
        ({"expectations": [{"kind": "in_set", "columns": ["ok"], "values": ["yes", "no"]}]}, {"ok"}),
        ({"expectations": [{"kind": "not_null", "columns": ["ok"]}]}, set()),
        ({"split": {"kind": "column", "column": "ok", "train": ["yes"], "test": ["no"]}}, {"ok"}),
        (
            {"source": {"format": "csv", "path": "f.csv", "where": [{"column": "ok", "op": "==", "value": "yes"}]}},
            {"ok"},
        ),
        ({"source": {"format": "csv", "path": "f.csv", "dtypes": {"at": "string"}}}, {"at"}),
    ],
)
def test_texts_that_the_spec_names_or_encodes_stay_text(tmp_path, fields, kept):
    write(tmp_path, f=KINDS)
    found: Any = recognise(spec(tmp_path, **fields))[0].source
    kinds = {name for name, dtype in found.dtypes.items() if dtype != "string"}
    assert kinds == {"ok", "at", "took"} - kept


def test_test_files_are_read_as_the_others_where_they_hold_one_of_two_words(tmp_path):
    for name, words in (("train", ("yes", "no")), ("test", ("no", "no"))):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f="ok,y\n" + "".join(f"{word},u\n" for word in words))
    given = {"source": {"format": "csv", "path": "train"}, "test_source": {"format": "csv", "path": "test"}}
    found = recognise(spec(tmp_path, **given, split={"kind": "hash", "val_frac": 0, "test_frac": 0}))[0]
    source, test_source = found.source, found.test_source
    assert isinstance(source, CsvSource) and isinstance(test_source, CsvSource)
    assert source.dtypes == test_source.dtypes == {"ok": "bool"}


def test_column_that_does_not_matter_never_makes_a_bad_row(tmp_path):
    rows = "1,12 €,yes,2024-13-01\n" * 60_000 + "2,on request,maybe,soon\n"
    write(tmp_path, f="x,price,ok,y\n" + rows)
    assert len(rows) > 2**20
    found: Any = recognise(spec(tmp_path, features=["x"]))[0].source
    assert found.dtypes == {} and found.signs == {}
    assert BAD not in rows_of(tmp_path, found)[-1]
    whole: Any = recognise(spec(tmp_path))[0].source
    assert whole.signs == {"price": "€"}


def test_whole_numbers_that_are_dates_are_told_with_the_setting_that_reads_them(tmp_path):
    numbers = random.Random(0).sample(range(10**7, 10**8), 3)
    days = ("20240131", "20231224", "20200229")
    write(tmp_path, f="day,n,y\n" + "".join(f"{d},{n},u\n" for d, n in zip(days, numbers, strict=True)))
    found, lines = recognised(tmp_path)
    assert len(lines) == 1 and 'data.source.date_format: {"day": "%Y%m%d"}' in lines[0] and found.dtypes == {}
    found, lines = recognised(tmp_path, date_format={"day": "%Y%m%d"})
    assert [row["day"] for row in rows_of(tmp_path, found)] == ["2024-01-31", "2023-12-24", "2020-02-29"]
    date_parts = {"kind": "date_parts", "columns": ["day"], "unit": "yyyymmdd"}
    assert not recognise(spec(tmp_path, transforms=[date_parts]))[1]


def test_compact_date_with_a_digit_too_few_is_none(tmp_path):
    write(tmp_path, f="day,y\n2024013,u\n")
    (row,) = rows_of(tmp_path, recognised(tmp_path, date_format={"day": "%Y%m%d"})[0])
    assert row["day"] is None and "'day' is '2024013', which is no date like %Y%m%d" in row[BAD]


def test_dates_in_each_format_that_is_tried_are_found():
    days = [datetime(2024, 2, 29, 13, 45, 59, 123456), datetime(1999, 12, 31, 0, 5, 7)]
    missed = [each for each in DATES if each not in dates_of(pa.array([day.strftime(each) for day in days]))]
    assert all(each.startswith("%Y-%m-%d") for each in missed) and len(missed) == 5  # ISO 8601, which needs no format


@pytest.mark.parametrize(("point", "group"), [(".", ","), (",", "."), (",", " "), (".", "'"), (".", "_")])
def test_marks_between_thousands_that_a_later_value_holds_are_seen(tmp_path, point, group):
    numbers = [f"{i}{point}5" for i in range(300)] + [f"1{group}234{group}567{point}25"]
    write(tmp_path, f="n;y\n" + "".join(f"{number};u\n" for number in numbers))
    found, _ = recognised(tmp_path)
    assert (found.decimal_point, found.thousands) == (point, group)
    assert [row["n"] for row in rows_of(tmp_path, found)][-2:] == [299.5, 1234567.25]
