from __future__ import annotations

import gzip
import struct
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from ray.data.extensions import ArrowPythonObjectArray

from raypipe.data.formats import FORMATS, idx, sklearn
from raypipe.data.formats.datasource import read_group
from raypipe.data.sources.files import find
from raypipe.data.table import columns
from raypipe.data.table.marks import BAD, leading_zeros
from raypipe.data.table.normal_form import normalise
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError
from raypipe.pipeline.plan import source_fingerprint
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import CsvSource, Source
from raypipe.testing.contracts import FormatContract
from tests.unit.data.helpers import reader, source_file


def test_table_of_formats_agrees_with_the_spec_and_the_contract():
    variants = TypeAdapter(Source).json_schema()["discriminator"]["mapping"]
    assert set(FORMATS) == set(variants) - {"wav"} == set(FormatContract.examples)  # an older name of sound


@pytest.mark.parametrize("name", FORMATS)
def test_format_keeps_its_contract_on_files(name, tmp_path):
    contract = FormatContract(name)
    contract.check_missing(tmp_path)
    (tmp_path / "again").mkdir()
    contract.check_files(tmp_path / "again")


def rows_of_all(name, fields, root):
    """All rows as columns, but for the names of files."""
    spec = TypeAdapter(Source).validate_python({"format": name, **fields})
    parts, read_part = FORMATS[name].plan(spec, str(root))
    tables = [table for part in parts for table in read_part(part)]
    return {
        column: [np.asarray(value).tolist() for table in tables for value in table[column].to_pylist()]
        for column in tables[0].column_names
        if column != "file"
    }


@pytest.mark.parametrize("ending", [str.upper, str.title])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "sklearn"])
def test_files_that_end_in_capitals_are_found_and_read_like_the_others(name, ending, tmp_path):
    def renamed(path):
        stem, dot, last = path.partition(".")
        return stem + dot + ending(last)

    fields, _ = FormatContract.examples[name](tmp_path)
    expected = rows_of_all(name, fields, tmp_path)
    endings: dict[str, None] = {}
    for file in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        endings["".join(file.suffixes)] = None
        file.rename(file.with_name(renamed(file.name)))
    if "path" in fields:  # a folder, and a glob for each ending in small letters
        ways = [{"path": "."}, {"path": [f"**/*{each}" for each in endings]}]
        ways = [{**fields, **way} for way in ways]
    elif "arrays" in fields:
        ways = [{"arrays": {column: renamed(path) for column, path in fields["arrays"].items()}}]
    else:
        ways = [{field: renamed(path) for field, path in fields.items()}]
    for way in ways:
        assert rows_of_all(name, way, tmp_path) == expected
    assert all(expected.values())


def read_csv(folder, text, **options):
    (folder / "f.csv").write_text(text)
    (table,) = reader("csv", **options)(source_file(folder / "f.csv"))
    return table


def test_csv_null_values_are_missing_in_numbers_and_text(tmp_path):
    table = read_csv(tmp_path, "a,b\n1,x\nNA,?\n,null\n2.5,\n")
    assert table.to_pydict() == {"a": [1.0, None, None, 2.5], "b": ["x", None, None, None]}


def test_csv_null_values_of_the_spec_replace_the_usual_ones(tmp_path):
    table = read_csv(tmp_path, "a,b\n1,NA\n-99,y\n", null_values=["-99"])
    assert table.to_pydict() == {"a": [1, None], "b": ["NA", "y"]}


def test_csv_column_that_turns_to_fractions_late_is_read_as_numbers(tmp_path):
    lines = [str(i) for i in range(400_000)]  # more than the first megabyte, where Ray's own reader settles the type
    table = read_csv(tmp_path, "a\n" + "\n".join(lines) + "\n0.5\n")
    assert table["a"].type == pa.float64() and table["a"][-1].as_py() == 0.5


def test_csv_that_is_empty_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"f\.csv is not readable as CSV"):
        read_csv(tmp_path, "")


def test_csv_other_delimiter_is_honoured(tmp_path):
    assert read_csv(tmp_path, "a;b\n1;2\n", delimiter=";").to_pydict() == {"a": [1], "b": [2]}


def test_csv_gzip_that_is_cut_short_is_refused_by_name(tmp_path):
    data = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    (tmp_path / "f.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"f\.csv\.gz is not readable"):
        list(reader("csv")(source_file(tmp_path / "f.csv.gz")))


@pytest.mark.parametrize(
    ("text", "a", "b"),
    [
        ("a,b\n1,x\n\n2,y\n", [1, None, 2], ["x", None, "y"]),
        ("a,b\r\n1,x\r\n\r\n2,y\r\n\r\n", [1, None, 2], ["x", None, "y"]),
        ("a,b\n\n\n1,x", [None, None, 1], [None, None, "x"]),
        ("a,b\n1,x\n\n\n\n", [1], ["x"]),
        ("\ufeff\n\na,b\n1,x\n\n2,y\n", [1, None, 2], ["x", None, "y"]),
        ('a,b\n1,"x\n\ny"\n\n2,\n', [1, None, 2], ["x\n\ny", None, ""]),
        (f'a,b\n1,"{"x" * 200_000}"\n\n2,y\n', [1, None, 2], ["x" * 200_000, None, "y"]),
        ("a,b\n\n\n", [], []),
    ],
)
def test_csv_blank_line_is_an_empty_row_between_rows_and_nothing_elsewhere(text, a, b, tmp_path):
    assert read_csv(tmp_path, text, null_values=["NA"]).to_pydict() == {"a": a, "b": b}


def test_csv_blank_line_in_a_file_of_one_column_is_a_missing_value(tmp_path):
    assert read_csv(tmp_path, 'a\n1\n\n""\n2\n\n\n').to_pydict() == {"a": [1, None, None, 2]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}\n\n{"a": 2}\n', [1, None, 2]),
        ('{"a": 1}\r\n\r\n  \t\r\n{"a": 2}\r\n\r\n', [1, None, None, 2]),
        ('\n\n{"a": 1}\n \n\n', [1]),
    ],
)
def test_jsonl_blank_line_is_an_empty_row_between_rows_and_nothing_elsewhere(text, found, tmp_path):
    (tmp_path / "f.jsonl").write_bytes(text.encode())
    (table,) = reader("jsonl")(source_file(tmp_path / "f.jsonl"))
    assert table.to_pydict() == {"a": found}


def test_jsonl_of_numbers_and_lists_is_read(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"a": 1, "v": [1, 2]}\n{"v": [3.5, 4], "a": 2.5}\n')
    (table,) = reader("jsonl")(source_file(tmp_path / "f.jsonl"))
    assert table.to_pydict() == {"a": [1, 2.5], "v": [[1, 2], [3.5, 4]]}


def test_parquet_reads_only_named_columns_and_refuses_unknown_ones(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "f.parquet")
    (table,) = reader("parquet", columns=["b"])(source_file(tmp_path / "f.parquet"))
    assert table.column_names == ["b"]
    with pytest.raises(DataError, match=r"f\.parquet: column 'bb' is not there, did you mean 'b'"):
        list(reader("parquet", columns=["bb"])(source_file(tmp_path / "f.parquet")))


def test_parquet_that_is_none_is_refused_by_name(tmp_path):
    (tmp_path / "f.parquet").write_bytes(b"PAR1 but nothing more")
    with pytest.raises(DataError, match=r"f\.parquet is not readable as Parquet"):
        list(reader("parquet")(source_file(tmp_path / "f.parquet")))


def test_parquet_with_pickled_objects_is_refused_by_type_and_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    table = pa.table({"a": [1], "o": ArrowPythonObjectArray.from_objects([Bomb()])})
    pq.write_table(table, tmp_path / "f.parquet")
    file = source_file(tmp_path / "f.parquet")
    with pytest.raises(DataError, match=r"column 'o' has extension type ray\.data\.arrow_pickled_object"):
        list(read_group([file], reader("parquet"), None))
    (table,) = read_group([file], reader("parquet", columns=["a"]), ["a"])
    assert table.to_pydict() == {"a": [1]}


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        (pa.array(["u", "v", "u"]).dictionary_encode(), str(columns.ENCODED), ["u", "v", "u"]),
        (pa.array(["u"], pa.large_string()), "string", ["u"]),
        (pa.array([1.5], pa.float16()), "float", [1.5]),
        (pa.array([Decimal("1.5")]), "double", [1.5]),
        (pa.array([0], pa.date32()), "string", ["1970-01-01"]),
        (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), "list<element: int32>", [[1, 2]]),
    ],
)
def test_column_of_a_rich_type_becomes_numbers_text_or_lists(values, dtype, found):
    table = normalise(pa.table({"a": values}), "f")
    assert table["a"].to_pylist() == found
    assert columns.kind(table["a"].type).dtype == columns.kind(normalise(table, "f")["a"].type).dtype
    assert dtype.startswith(("list", str(table["a"].type)))


def test_encoded_text_whose_dictionary_repeats_itself_or_has_a_gap_is_encoded_anew():
    odd = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None], pa.int32()), pa.array(["u", None, "u"]))
    found = normalise(pa.table({"a": odd}), "f")["a"]
    assert found.type == columns.ENCODED and found.to_pylist() == ["u", None, "u", None]
    assert found.chunk(0).dictionary.to_pylist() == ["u"]
    assert (row_hash({"a": found.chunk(0)}) == row_hash({"a": odd.cast(pa.string())})).all()


@pytest.mark.parametrize("values", [[b"bytes"], [{"a": 1}], [[["text"]]]])
def test_column_without_numbers_or_text_is_refused_by_name(values):
    with pytest.raises(DataError, match="f: column 'a' has type"):
        normalise(pa.table({"a": values}), "f")


def idx_bytes(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-12], "f is damaged"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:30], "f is damaged"),
        (idx_bytes(IMAGES)[:-1], "f is damaged: its header says .2, 4, 3., that is 40 bytes, but it has 39"),
        (idx_bytes(IMAGES) + b"x", "but it has 41"),
        (idx_bytes(IMAGES)[:10], "ends inside its header"),
        (idx_bytes(IMAGES[0, 0]), "f starts with 00000801.*3 dimension.*starts with 00000803"),
        (b"", "f starts with nothing"),
        (b"<html>not found</html>", "f starts with 3c68746d"),
    ],
)
def test_idx_that_is_damaged_is_refused_by_file(data, message):
    with pytest.raises(DataError, match=message):
        idx.decode(data, "f", num_dims=3)


def test_idx_of_different_counts_is_refused_with_both(tmp_path):
    (tmp_path / "i").write_bytes(idx_bytes(IMAGES))
    (tmp_path / "l").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="i has 2 images but l has 3 labels"):
        idx.read_pair(idx.Pair(source_file(tmp_path / "i"), source_file(tmp_path / "l")))


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_sklearn_set_has_features_and_a_target(name):
    table = sklearn.load(name)
    target = "label" if name == "digits" else "target"
    assert table.column_names[-1] == target and table.num_rows > 100
    assert all(column.isidentifier() for column in table.column_names)


def test_path_may_be_a_file_a_folder_a_glob_or_several(tmp_path):
    for name in ("b.csv", "a.csv", "_hidden.csv", "notes.md", "deep/c.csv.gz", "deep/er/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)

    def names(path):
        return [file.name for file in find(path, str(tmp_path), CsvSource.suffixes)]

    assert names("b.csv") == ["b.csv"]
    assert names("notes.md") == ["notes.md"]
    assert names(".") == ["a.csv", "b.csv", "deep/c.csv.gz", "deep/er/d.csv"]
    assert names("*.csv") == ["_hidden.csv", "a.csv", "b.csv"]
    assert names("**/*.csv") == ["_hidden.csv", "a.csv", "b.csv", "deep/er/d.csv"]
    assert names(["b.csv", "a.csv", "*.csv"]) == ["b.csv", "a.csv", "_hidden.csv"]
    assert names(str(tmp_path / "deep")) == ["deep/c.csv.gz", "deep/er/d.csv"]


def test_question_mark_in_a_path_that_is_no_web_address_is_a_glob():
    for path in ("part-?.csv", "s3://bucket/part-?.csv"):
        assert CsvSource(format="csv", path=path).path == path


def test_path_that_is_misspelt_is_refused_with_the_near_name(tmp_path):
    (tmp_path / "titanic.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"'titanik.csv' matches no file .*did you mean 'titanic.csv'"):
        find("titanik.csv", str(tmp_path), CsvSource.suffixes)


def test_folder_without_data_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.csv"):
        find(".", str(tmp_path), CsvSource.suffixes)


def test_folder_of_other_files_says_what_it_holds_and_an_empty_one_that_it_is(tmp_path):
    for name in ("a.parquet", "b.parquet", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no \.csv .*; it holds 2 \.parquet, 1 \.md"):
        find(".", str(tmp_path), CsvSource.suffixes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.png .*; it holds nothing"):
        find("empty", str(tmp_path), (".png", ".jpg"))


def test_source_fingerprint_changes_with_content_and_not_with_the_place(tmp_path):
    def of(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "f.csv").write_text(text)
        fields = {"source": {"format": "csv", "path": "f.csv"}, "target": "y", "root": str(tmp_path / folder)}
        return source_fingerprint(DataSpec.model_validate(fields))

    assert of("here", "a,y\n1,2\n") == of("there", "a,y\n1,2\n") != of("here", "a,y\n1,3\n")


def test_csv_numbers_written_with_leading_zeros_are_told_with_the_first_of_them(tmp_path):
    text = 'zip,"id",share,name,y\n2139,1,0.5,007,10\n02139,2,00.5,a,"01"\n'
    (tmp_path / "f.csv").write_text(text)
    (table,) = read_group([source_file(tmp_path / "f.csv")], reader("csv"), None)
    assert table["zip"].to_pylist() == [2139, 2139] and table["name"].to_pylist() == ["007", "a"]
    assert leading_zeros(table.schema) == {"zip": "02139", "y": "01"}
    kept = reader("csv", dtypes={"zip": "string", "y": "string"})
    (table,) = read_group([source_file(tmp_path / "f.csv")], kept, None)
    assert table["zip"].to_pylist() == ["2139", "02139"] and leading_zeros(table.schema) == {}


def test_csv_numbers_without_leading_zeros_tell_nothing(tmp_path):
    (tmp_path / "f.csv").write_text("a,b,c\n0,100,-0\n10,2000,0\n")
    (table,) = read_group([source_file(tmp_path / "f.csv")], reader("csv"), None)
    assert leading_zeros(table.schema) == {}


def test_csv_value_that_is_none_of_its_type_is_shown_as_it_is_written(tmp_path):
    (tmp_path / "f.csv").write_text("a,b\n1,x\n . ,x\n")
    (table,) = reader("csv", dtypes={"a": "int64"})(source_file(tmp_path / "f.csv"))
    assert "'a' is ' . ', which is no int64" in table[BAD].to_pylist()[1]
