"""NumPy files, and how large Parquet, Arrow and NumPy files are divided."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from raypipe.data.formats import FORMATS, arrow, parquet
from raypipe.data.formats import numpy as numpy_format
from raypipe.data.formats.datasource import grouped, read_group
from raypipe.errors import DataError
from tests.unit.data.helpers import reader, sized_file, source

ARRAYS = {
    "x": np.arange(24, dtype=np.float32).reshape(6, 2, 2),
    "h": np.linspace(0, 1, 6).astype(np.float16),
    "big": np.arange(6).astype(">i4"),
    "f": np.asfortranarray(np.arange(12).reshape(6, 2)),
    "t": np.array(["a", "ä", "", "d", "e", "f"]),
    "b": np.array([True, False] * 3),
    "d": np.array(["2020-01-01", "NaT", *["2021-05-06"] * 4], "datetime64[D]"),
}


def save(folder, arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: sized_file(folder / f"{name}.npy") for name in arrays}


def columns_of(tables):
    tables = list(tables)
    found = {}
    for name in tables[0].column_names:
        values = [value for table in tables for value in table[name].to_pylist()]
        found[name] = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    return found


EXPECTED = {
    **{name: array.tolist() for name, array in ARRAYS.items() if name != "d"},
    "d": ["2020-01-01", None, *["2021-05-06"] * 4],
}


@pytest.mark.parametrize("block_bytes", [1, 60, 10**6])
def test_npy_files_are_columns_whatever_the_blocks(block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_format, "BLOCK_BYTES", block_bytes)  # of files this small
    found = save(tmp_path, ARRAYS)
    parts = numpy_format.parts(found)
    assert len(parts) == {1: 6, 60: 6, 10**6: 1}[block_bytes]
    spec = source("numpy", path=None, arrays={name: f"{name}.npy" for name in ARRAYS})
    read = read_group(parts, lambda part: numpy_format.read_arrays(part, source=spec), None)
    assert columns_of(read) == EXPECTED


@pytest.mark.parametrize("block_bytes", [1, 60, 10**6])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_file_is_a_table_whatever_the_blocks(write, block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_format, "BLOCK_BYTES", block_bytes)  # of files this small
    write(tmp_path / "f.npz", **ARRAYS)
    spec = source("numpy", path="f.npz")
    file = sized_file(tmp_path / "f.npz")
    read = read_group([file], lambda part: numpy_format.read_archive(part, source=spec), None)
    assert columns_of(read) == EXPECTED
    some = spec.model_copy(update={"columns": ["t", "x"]})
    (table,) = read_group([file], lambda part: numpy_format.read_archive(part, source=some), ["t", "x"])
    assert table.column_names == ["t", "x"] and table["t"].to_pylist() == EXPECTED["t"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, "equally many rows, but x.npy has 3, y.npy has 4"),
        ({"x": np.float64(3)}, "x.npy holds one value"),
        ({"x": np.zeros(3, complex)}, "x.npy holds complex128; an array holds numbers, text or true/false"),
        ({"x": np.array([b"a"])}, "x.npy holds .S1"),
        ({"x": np.zeros(3, [("a", "i4"), ("b", "f8")])}, "x.npy holds"),
    ],
)
def test_arrays_that_make_no_table_are_refused_by_name(arrays, message, tmp_path):
    with pytest.raises(DataError, match=message):
        numpy_format.parts(save(tmp_path, arrays))


def test_npy_that_is_cut_short_or_too_long_is_refused(tmp_path):
    found = save(tmp_path, {"x": np.arange(10)})
    data = (tmp_path / "x.npy").read_bytes()
    for changed in (data[:-1], data + b"x", data[:70], data[:5], b""):
        (tmp_path / "x.npy").write_bytes(changed)
        with pytest.raises(DataError, match=r"x\.npy"):
            numpy_format.parts({"x": sized_file(tmp_path / "x.npy")})
    del found


def test_npz_with_bits_turned_is_refused_or_read_and_never_an_error_of_another_kind(tmp_path):
    np.savez(tmp_path / "f.npz", x=np.arange(40), y=np.ones((40, 2), np.float32))
    data = (tmp_path / "f.npz").read_bytes()
    refused = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        changed = bytearray(data)
        changed[random.integers(len(data))] ^= 1 << random.integers(8)
        (tmp_path / "f.npz").write_bytes(changed if seed % 4 else data[: random.integers(len(data))])
        spec = source("numpy", path="f.npz")
        try:
            list(numpy_format.read_archive(sized_file(tmp_path / "f.npz"), source=spec))
        except DataError:
            refused += 1
    assert refused > 150  # the archive's checksums see all but what stands in unused fields


def test_npy_named_as_path_says_how_to_name_it(tmp_path):
    save(tmp_path, {"x": np.arange(3)})
    with pytest.raises(DataError, match="holds one array without a name") as caught:
        FORMATS["numpy"].plan(source("numpy", path="x.npy"), str(tmp_path))
    assert "data.source.arrays: {x: x.npy}" in caught.value.hint
    with pytest.raises(ValidationError, match="either path"):
        source("numpy", path=None)


TABLE = pa.table({"a": list(range(1000)), "s": [f"text {i}" for i in range(1000)]})


@pytest.mark.parametrize("block_bytes", [1, 5000, 10**9])
def test_large_parquet_file_is_divided_by_row_groups_and_each_row_is_read_once(block_bytes, tmp_path, monkeypatch):
    pq.write_table(TABLE, tmp_path / "f.parquet", row_group_size=100)
    monkeypatch.setattr(parquet, "BLOCK_BYTES", block_bytes)  # of files this small
    parts = parquet.Parquet().divided(sized_file(tmp_path / "f.parquet"), source("parquet", path="f.parquet"))
    assert len(parts) == {1: 10, 5000: 4, 10**9: 1}[block_bytes]
    assert sum(part.size_bytes or 0 for part in parts) <= (tmp_path / "f.parquet").stat().st_size
    assert columns_of(read_group(parts, reader("parquet"), None)) == TABLE.to_pydict()


@pytest.mark.parametrize("block_bytes", [1, 5000, 10**9])
def test_large_arrow_file_is_divided_by_record_batches_and_each_row_is_read_once(block_bytes, tmp_path, monkeypatch):
    pyarrow.feather.write_feather(TABLE, str(tmp_path / "f.feather"), chunksize=100, compression="zstd")
    with pa.ipc.new_stream(tmp_path / "f.arrows", TABLE.schema) as stream:
        stream.write_table(TABLE, max_chunksize=100)
    monkeypatch.setattr(arrow, "BLOCK_BYTES", block_bytes)  # of files this small
    parts = arrow.Arrow().divided(sized_file(tmp_path / "f.feather"), source("arrow", path="f"))
    assert (len(parts) > 1) == (block_bytes < 10**9)
    assert columns_of(read_group(parts, reader("arrow"), None)) == TABLE.to_pydict()
    whole = arrow.Arrow().divided(sized_file(tmp_path / "f.arrows"), source("arrow", path="f"))
    assert len(whole) == 1 and columns_of(read_group(whole, reader("arrow"), None)) == TABLE.to_pydict()


def test_feather_version_1_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "f.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(DataError, match=r"f\.feather is Feather version 1") as caught:
        list(reader("arrow")(sized_file(tmp_path / "f.feather")))
    assert "version 2" in caught.value.hint


def test_text_that_is_encoded_in_one_file_and_plain_in_another_comes_out_in_one_table(tmp_path):
    plain = pa.table({"s": ["a", "b", None]})
    tables = {"p": plain, "d": pa.table({"s": plain["s"].dictionary_encode()})}
    for names in (["p", "d"], ["d", "p"]):
        for name in names:
            pq.write_table(tables[name], tmp_path / f"{name}.parquet")
        files = [sized_file(tmp_path / f"{name}.parquet") for name in names]
        (table,) = read_group(files, reader("parquet"), None)
        assert table["s"].to_pylist() == ["a", "b", None] * 2


def test_parts_are_grouped_by_size_in_order_and_all_of_them():
    class Sized:
        name = "x"

        def __init__(self, size_bytes):
            self.size_bytes = size_bytes

    parts = [Sized(size) for size in [0, 5, 100, 1, 1, 1, 0, 90, 3]]
    for num_groups in range(1, 12):
        groups = grouped(parts, num_groups)
        assert [part for group in groups for part in group] == parts and all(groups)
        assert len(groups) == min(num_groups, len(parts))
    assert max(sum(part.size_bytes for part in group) for group in grouped(parts, 2)) < 150
