"""Plain text: lines, paragraphs and windows of characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.formats.text import cut
from raypipe.data.table.marks import BAD
from tests.unit.data.helpers import reader, sized_file


def texts(tmp_path, data, **fields):
    (tmp_path / "f.txt").write_bytes(data)
    tables = list(reader("text", **fields)(sized_file(tmp_path / "f.txt")))
    return [text for table in tables for text in table["text"].to_pylist()], tables


def test_lines_are_rows_without_their_line_breaks_and_blank_ones_are_none(tmp_path):
    data = "\ufeff one\r\n\n\ttwo \n   \nthree".encode()
    assert texts(tmp_path, data)[0] == [" one", "\ttwo ", "three"]


def test_paragraphs_are_rows_and_keep_their_line_breaks(tmp_path):
    data = b"\n\nfirst\nline two\n \n\n\nsecond\r\n\r\nthird\n"
    assert texts(tmp_path, data, rows="paragraphs")[0] == ["first\nline two", "second", "third"]


@pytest.mark.parametrize(("rows", "found"), [("lines", ["a", None, "c"]), ("windows", ["a\n", None, "\nc"])])
def test_bytes_that_are_no_utf8_make_a_bad_row(rows, found, tmp_path):
    data = b"a\n\xff\nc" if rows == "lines" else b"a\n\xffb\nc"
    values, tables = texts(tmp_path, data, rows=rows, window_chars=2)
    assert values == found
    assert tables[0][BAD].to_pylist() == [None, "f.txt: the row is no UTF-8 text", None]


def test_character_that_two_reads_share_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("raypipe.data.formats.text.READ_BYTES", 1)  # reads end within characters
    assert texts(tmp_path, "\ufeffaä€😀".encode(), rows="windows", window_chars=3)[0] == ["aä€", "😀"]


@given(st.text("abc", max_size=40), st.integers(1, 9), st.integers(1, 12), st.integers(1, 9))
def test_windows_do_not_depend_on_how_the_text_is_read(text, size, stride, step):
    pieces = [text[i : i + step] for i in range(0, len(text), step)]
    starts = [i for i in range(0, len(text), stride) if i + size <= len(text)]
    expected = [text[i : i + size] for i in starts]
    rest = starts[-1] + stride if starts else 0
    covered = starts[-1] + size if starts else 0
    if len(text) > max(rest, covered):
        expected.append(text[rest:])
    assert list(cut(pieces, size, stride)) == expected


def test_empty_file_has_no_rows_but_its_column(tmp_path):
    for rows in ("lines", "paragraphs", "windows"):
        values, tables = texts(tmp_path, b"\n\n", rows=rows)
        assert values == [] and tables[0].column_names == ["text"]
