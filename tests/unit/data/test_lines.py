"""Text cut into chunks: whatever the cut, the same rows come out, each once."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.data.formats import json_documents, lines
from raypipe.data.formats.jsonl import Jsonl
from raypipe.data.formats.lines import RowReader, line_ends, ranges
from raypipe.data.formats.parts import FileRange
from raypipe.data.formats.quotes import row_ends
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from tests.conftest import examples
from tests.unit.data.helpers import reader, sized_file, source

CHUNKS = [1, 7, 64, 1000, 10**6]
TEXT = {"dtypes": {"a": "string", "b": "string"}, "null_values": ["NULL"]}

quick = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def chunk_bytes(monkeypatch):
    """Sets the size of a chunk, so that short texts have several."""

    def set_to(num_bytes):
        monkeypatch.setattr(lines, "CHUNK_BYTES", num_bytes)
        monkeypatch.setattr(lines, "LOOK_BYTES", max(4, num_bytes // 2))

    return set_to


def rows_of(parts, read):
    """Values of all rows, and why those that are bad are."""
    rows, reasons = [], []
    for part in parts:
        for table in read(part):
            reasons += table[BAD].to_pylist() if BAD in table.column_names else [None] * table.num_rows
            columns = [name for name in table.column_names if name != BAD]
            rows += list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    return rows, reasons


cells = st.text(st.sampled_from('ab,"\n\r ä'), max_size=6)


@quick
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=20))
def test_csv_in_any_chunks_gives_the_rows_that_python_s_own_reader_gives(chunk_bytes, tmp_path, rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "b"), *rows])
    (tmp_path / "f.csv").write_bytes(text.getvalue().encode())
    for num_bytes in CHUNKS:
        chunk_bytes(num_bytes)
        found, reasons = rows_of([sized_file(tmp_path / "f.csv")], reader("csv", **TEXT))
        assert found == rows and not any(reasons), num_bytes


loose = st.text(st.sampled_from('ab,"\n\r'), max_size=60)


@quick
@given(loose)
def test_csv_of_any_characters_in_any_chunks_is_what_it_is_in_one(chunk_bytes, tmp_path, text):
    (tmp_path / "f.csv").write_bytes(b"a,b\n" + text.encode())
    seen = []
    for num_bytes in reversed(CHUNKS):
        chunk_bytes(num_bytes)
        seen.append(rows_of([sized_file(tmp_path / "f.csv")], reader("csv", **TEXT)))
    assert all(found == seen[0] for found in seen[1:])


@quick
@given(st.binary(max_size=80).map(lambda noise: bytes(b'ab,"\n\r'[byte % 6] for byte in noise)))
def test_row_ends_agree_with_a_character_at_a_time(data):
    assert row_ends(data, False, delimiter=ord(","))[0].tolist() == slow_row_ends(data)


def slow_row_ends(data):
    """Arrow's rule, one character after another."""
    found, in_quotes, at_start, i = [], False, True, 0
    while i < len(data):
        char = data[i : i + 1]
        if in_quotes:
            if char == b'"' and data[i + 1 : i + 2] == b'"':
                i += 1
            elif char == b'"':
                in_quotes = False
        elif char == b'"' and at_start:
            in_quotes = True
        elif char == b"\n" or (char == b"\r" and i + 1 < len(data) and data[i + 1 : i + 2] != b"\n"):
            found.append(i + 1)
        at_start = not in_quotes and char in (b",", b"\n", b"\r")
        i += 1
    return found


@pytest.mark.parametrize("num_bytes", [3, 10, 37, 100, 10**6])
@pytest.mark.parametrize("name", ["csv", "jsonl", "text"])
def test_ranges_of_a_large_file_hold_each_row_once_in_order(chunk_bytes, tmp_path, name, num_bytes):
    chunk_bytes(num_bytes)
    values = ["x" * (i % 23) + f"{i}" for i in range(50)]
    written = {"csv": ["a,b", *(f"{v},ä" for v in values)], "text": values}
    written["jsonl"] = [json.dumps({"a": v, "b": "ä"}) for v in values]
    gaps = {5, 6, 20}  # blank lines, also at the end of a range
    text = "\n".join(line + "\n" * (i in gaps) for i, line in enumerate(written[name])) + "\n\n\n"
    (tmp_path / "f").write_text(text)
    fields = {"csv": {**TEXT, "newlines_in_values": False}, "jsonl": {"columns": ["a", "b"]}, "text": {}}[name]
    parts = ranges([sized_file(tmp_path / "f")])
    size = len(text.encode())
    assert len(parts) >= size // num_bytes and sum(part.size_bytes or 0 for part in parts) == size
    rows, reasons = rows_of(parts, reader(name, **fields))
    filled = [row[0] for row in rows if row[0] is not None]
    assert filled == values and not any(reasons)
    assert len(rows) == 50 + (0 if name == "text" else 3)


def test_ranges_of_files_that_cannot_be_divided_are_whole(chunk_bytes, tmp_path):
    chunk_bytes(10)
    for name in ("f.csv", "f.csv.gz"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert len(ranges([sized_file(tmp_path / "f.csv")])) == 10
    assert len(ranges([sized_file(tmp_path / "f.csv")], divisible=False)) == 1
    assert len(ranges([sized_file(tmp_path / "f.csv.gz")])) == 1


@pytest.mark.parametrize("num_bytes", [16, 5000, 10**6])
def test_row_that_is_too_long_is_bad_and_the_others_are_read(chunk_bytes, tmp_path, num_bytes):
    chunk_bytes(num_bytes)
    rows = ["1,x", "2," + "y" * 2000, '3,"' + "z\n" * 2000 + '"', "4,x"]
    (tmp_path / "f.csv").write_text("\n".join(["a,b", *rows]))
    found, reasons = rows_of([sized_file(tmp_path / "f.csv")], reader("csv", max_row_bytes=1024, **TEXT))
    assert found == [("1", "x"), (None, None), (None, None), ("4", "x")]
    assert reasons == [None, *["f.csv: the row is longer than max_row_bytes=1024"] * 2, None]


def test_string_of_100_mb_is_one_bad_row_in_bounded_memory(tmp_path):
    with open(tmp_path / "f.jsonl", "wb") as file:
        file.write(b'{"a": "x"}\n{"a": "')
        for _ in range(100):
            file.write(b"y" * 10**6)
        file.write(b'"}\n{"a": "z"}\n')
    found, reasons = rows_of([sized_file(tmp_path / "f.jsonl")], reader("jsonl", columns=["a"]))
    assert found == [("x",), (None,), ("z",)]
    assert [why is None for why in reasons] == [True, False, True]


def test_file_of_blank_lines_is_refused_before_it_fills_the_memory(chunk_bytes, tmp_path):
    chunk_bytes(50_000)
    (tmp_path / "f.csv").write_bytes(b"a\n1\n" + b"\n" * 200_000 + b"2\n")
    with pytest.raises(DataError, match=r"f\.csv has more than 100000 blank lines on end"):
        rows_of([sized_file(tmp_path / "f.csv")], reader("csv"))
    (tmp_path / "f.csv").write_bytes(b"\n" * 2_000_000)
    with pytest.raises(DataError, match=r"f\.csv begins with \d+ bytes of blank lines"):
        rows_of([sized_file(tmp_path / "f.csv")], reader("csv"))


def test_rows_that_are_no_utf8_are_bad_and_the_others_are_read(tmp_path):
    (tmp_path / "f.csv").write_bytes("a,b\n1,ä\n".encode() + b"2,\xe4\n\xff,3\n" + "4,ö\n".encode())
    found, reasons = rows_of([sized_file(tmp_path / "f.csv")], reader("csv"))
    assert found == [(1, "ä"), (2, "ä"), (None, "3"), (4, "ö")]  # what could be read of them, by a guess
    assert reasons[1:3] == ["f.csv: the row is no UTF-8 text"] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,\xff\n1,2\n", "the header is no UTF-8"),
        (b'a,"b\n1,2\n', "the header opens a quote and never closes it"),
        (b"a" * 2000, "the header is longer than 1024 bytes"),
    ],
)
def test_header_that_cannot_be_used_is_refused_by_file(tmp_path, data, message):
    (tmp_path / "f.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"f\.csv.*{message}"):
        rows_of([sized_file(tmp_path / "f.csv")], reader("csv", max_row_bytes=1024))


@pytest.mark.parametrize(
    ("text", "delimiter", "wanted"),
    [("a;b;y\n1,5;2;3\n", ",", '";"'), ("a\tb\n1\t2\n", ",", r'"\t"'), ("a,b,c|d\n1,2,3\n", ";", '","')],
)
def test_header_that_another_delimiter_divides_names_that_delimiter(tmp_path, text, delimiter, wanted):
    (tmp_path / "f.csv").write_text(text)
    name = text.splitlines()[0]
    with pytest.raises(DataError) as caught:
        rows_of([sized_file(tmp_path / "f.csv")], reader("csv", delimiter=delimiter))
    assert repr(name) in caught.value.message and f"data.source.delimiter: {wanted};" in caught.value.hint


def test_column_whose_name_holds_another_delimiter_is_read_when_it_is_named(tmp_path):
    (tmp_path / "f.csv").write_text("a;b\n1\n2\n")
    read = reader("csv", columns=["a;b"])
    assert rows_of([sized_file(tmp_path / "f.csv")], read)[0] == [(1,), (2,)]


DOCUMENTS = {
    "array on one line": '[{"a":1},{"a":2}]\n',
    "array, an object a line": '[\n{"a":1},\n{"a":2}\n]\n',
    "array with commas first": '[{"a":1}\n,{"a":2}]',
    "pretty-printed array": '[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]\n',
    "pretty-printed objects": '{\n"a": 1\n}\n{\n"a": 2\n}\n',
    "with texts that hold brackets": '\ufeff [ {"a": 1, "t": "}]\\"{\\\\"}, {"t": "[", "a": 2} ]',
}


@pytest.mark.parametrize("num_bytes", [7, 10**6])
@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_json_that_is_no_json_lines_is_read_object_by_object(chunk_bytes, monkeypatch, tmp_path, text, num_bytes):
    chunk_bytes(num_bytes)
    monkeypatch.setattr(json_documents, "HEAD_BYTES", max(30, num_bytes))
    (tmp_path / "f.json").write_text(text)
    file = sized_file(tmp_path / "f.json")
    parts = Jsonl().divided(file, source("jsonl"))
    rows, reasons = rows_of(parts, reader("jsonl", columns=["a"]))
    assert [value for row in rows for value in row if not isinstance(value, str)] == [1, 2] and not any(reasons)


BROKEN = {
    "cut short": ('[{"a":1},{"a":2},{"a', "a JSON array that is damaged at its end: ',{\"a' follows"),
    "never closed": ('[{"a":1},{"a":2}', "a JSON array that is damaged at its end: '' follows"),
    "goes on": ('[{"a":1}] x', "a JSON array that is damaged at its end"),
    "half an object": ('{\n"a": 1\n}\n{\n"a": 2\n', "JSON written over several lines that is damaged"),
    "rows within": ('{"n": 2, "rows": [{"a":1},{"a":2}]}', r"one JSON object, whose field 'rows' holds the 2 rows"),
    "columns": ('{"a": {"0": 1, "1": 2}, "b": {"0": 1, "1": 2}}', "one JSON object that holds columns, not rows"),
}


@pytest.mark.parametrize(("text", "what"), BROKEN.values(), ids=BROKEN)
def test_json_that_holds_no_rows_or_is_damaged_is_told_as_what_it_is(tmp_path, text, what):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DataError, match=r"f\.json is " + re.escape(what)):
        rows_of([sized_file(tmp_path / "f.json")], reader("jsonl", columns=["a"]))


def test_objects_of_an_array_that_are_no_json_are_bad_rows(tmp_path):
    (tmp_path / "f.json").write_text('[{"a":1}, {"a":1} {"a":2}, 3, {"a":4}, {"a":5,}, {"a":"x\ny"}, {"a":6}]')
    found, reasons = rows_of([sized_file(tmp_path / "f.json")], reader("jsonl", columns=["a"]))
    assert [row[0] for row in found] == [1, 1, None, None, None, None, 6]
    assert "0 commas stand before it, where 1 belong" in reasons[2]
    assert "is no JSON" in reasons[3] and "is no JSON" in reasons[4] and "a text has a line break in it" in reasons[5]


def test_line_that_begins_like_an_array_among_objects_is_a_bad_row(tmp_path):
    (tmp_path / "f.json").write_text('[1, 2\n{"a":1}\n{"a":2}\n')
    found, reasons = rows_of([sized_file(tmp_path / "f.json")], reader("jsonl"))
    assert found == [(None,), (1,), (2,)] and "is no JSON" in reasons[0]


def test_chunk_replaces_the_rows_that_cannot_be_read(tmp_path):
    (tmp_path / "f").write_bytes(b"one\n\ntwo\n\xff\nthree")
    with closing(RowReader(FileRange(sized_file(tmp_path / "f"), 18), line_ends, 100, b"\n")) as rows:
        (chunk,) = rows.chunks()
    assert chunk.unread == {1: None, 3: "is no UTF-8 text"} and len(chunk) == 5
    assert chunk.replaced(lambda row: b"<%d>\n" % row) == b"one\n<1>\ntwo\n<3>\nthree"
    assert isinstance(chunk.ends, np.ndarray) and chunk.row(2) == b"two\n"
