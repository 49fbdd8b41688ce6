"""Files that carry code: none of it may run, whatever way the file is offered."""

from __future__ import annotations

import contextlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle as cloudpickle
from ray.data.extensions import ArrowPythonObjectArray, ArrowTensorArray

from raypipe.data.formats import FORMATS
from raypipe.data.formats import numpy as numpy_format
from raypipe.data.formats.datasource import read_group
from raypipe.data.sources.listing import list_files
from raypipe.errors import DataError
from raypipe.spec.sources import FORMAT_NAMES
from tests.unit.data.helpers import reader, sized_file, source


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (Path(self.canary),))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The file a payload would touch; at the end it must not be there, nor may anything have been unpickled."""
    path = tmp_path / "canary"
    calls = []
    for module in (pickle, cloudpickle):
        for name in ("loads", "load"):
            monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(args))  # a trap
    yield path
    assert not path.exists() and not calls


def test_bomb_goes_off_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def objects(canary):
    return ArrowPythonObjectArray.from_objects([Bomb(canary), Bomb(canary)])


def nested(values, how):
    """The extension array inside another type."""
    offsets = pa.array([0, 1, 2], pa.int32())
    return {
        "plain": lambda: values,
        "list": lambda: pa.ListArray.from_arrays(offsets, values),
        "list of list": lambda: pa.ListArray.from_arrays(offsets, pa.ListArray.from_arrays(offsets, values)),
        "fixed-size list": lambda: pa.FixedSizeListArray.from_arrays(values, 1),
        "struct": lambda: pa.StructArray.from_arrays([values], ["o"]),
        "map": lambda: pa.MapArray.from_arrays(offsets, pa.array(["k", "l"]), values),
        "dictionary": lambda: pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), values),
    }[how]()


def write(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrows":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)


def read_all(path, name, **fields):
    return list(read_group([sized_file(path)], reader(name, **fields), None))


HOW = ["plain", "list", "list of list", "fixed-size list", "struct", "map", "dictionary"]


@pytest.mark.parametrize(
    ("how", "suffix"),
    [(h, s) for h in HOW for s in (".parquet", ".arrow", ".arrows") if (h, s) != ("dictionary", ".parquet")],
)
def test_pickled_objects_in_any_nesting_are_refused(how, suffix, canary, tmp_path):
    path = tmp_path / f"f{suffix}"
    write(pa.table({"a": [1, 2], "o": nested(objects(canary), how)}), path)
    with pytest.raises(DataError, match=r"column 'o(\.o)?' has"):
        read_all(path, "parquet" if suffix == ".parquet" else "arrow")


EXTENSIONS = [
    "arrow.py_extension_type",
    "ray.data.arrow_pickled_object",
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
    "arrow.fixed_shape_tensor",
]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows"])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_extension_type_with_pickled_metadata_is_refused(extension, suffix, canary, tmp_path):
    storage = pa.array(
        [[1], [2]], pa.list_(pa.int64(), 1) if extension.startswith("arrow.f") else pa.large_list(pa.int64())
    )
    payload = pickle.dumps(Bomb(canary))
    metadata = {"ARROW:extension:name": extension.encode(), "ARROW:extension:metadata": payload}
    path = tmp_path / f"f{suffix}"
    write(pa.table([storage], pa.schema([pa.field("o", storage.type, metadata=metadata)])), path)
    try:
        tables = read_all(path, "parquet" if suffix == ".parquet" else "arrow")
    except DataError:  # as good
        return
    assert [table.to_pydict() for table in tables] == [{"o": [[1], [2]]}]  # a type nobody knows is its plain numbers


@pytest.mark.parametrize(
    "shape", ["[1000000]", "[-1]", "[[3]]", '["x"]', "3", "null", "{}", "[1e9]", "[4611686018427387904, 4]"]
)
@pytest.mark.parametrize("extension", ["ray.data.arrow_tensor", "ray.data.arrow_tensor_v2"])
def test_tensor_type_with_a_forged_shape_is_refused(extension, shape, tmp_path):
    storage = pa.array([[1, 2, 3]], pa.list_(pa.int64()) if extension.endswith("r") else pa.large_list(pa.int64()))
    metadata = {"ARROW:extension:name": extension.encode(), "ARROW:extension:metadata": shape.encode()}
    write(pa.table([storage], pa.schema([pa.field("o", storage.type, metadata=metadata)])), tmp_path / "f.arrow")
    with pytest.raises(DataError, match=r"f\.arrow"):
        read_all(tmp_path / "f.arrow", "arrow")


def test_tensor_of_a_true_shape_is_read(tmp_path):
    write(pa.table({"o": ArrowTensorArray.from_numpy(np.arange(4).reshape(2, 2))}), tmp_path / "f.arrow")
    (table,) = read_all(tmp_path / "f.arrow", "arrow")
    assert table["o"].to_pylist()[1].tolist() == [2, 3]


def npy(array):
    data = io.BytesIO()
    np.save(data, array, allow_pickle=True)
    return data.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("name", ["objects", "struct of objects", "code in the header", "deep header", "forged shape"])
def test_npy_that_could_carry_code_is_refused(name, canary, tmp_path):
    bombs = np.array([Bomb(canary)], object)
    deep = b"(" * 5000 + b")" * 4999 + b"\n"
    data = {
        "objects": lambda: npy(bombs),
        "struct of objects": lambda: npy(np.array([(Bomb(canary),)], dtype=[("o", object)])),
        "code in the header": lambda: header(f"__import__('pathlib').Path({str(canary)!r}).touch()\n".encode()),
        "deep header": lambda: header(deep),
        "forged shape": lambda: header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }\n"),
    }[name]()
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npy"):
        numpy_format.parts({"x": sized_file(tmp_path / "x.npy")})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", data)
    with pytest.raises(DataError, match=r"x\.npz"):
        list(numpy_format.read_archive(sized_file(tmp_path / "x.npz"), source=source("numpy", path="x.npz")))


def test_npy_of_objects_says_what_it_holds_and_what_to_do(canary, tmp_path):
    (tmp_path / "x.npy").write_bytes(npy(np.array([Bomb(canary)], object)))
    with pytest.raises(DataError, match=r"x\.npy holds Python objects, which can carry code") as caught:
        numpy_format.parts({"x": sized_file(tmp_path / "x.npy")})
    assert "dtype" in caught.value.hint


def test_npz_with_something_else_inside_is_refused(canary, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", npy(np.arange(3)))
        archive.writestr("y.pkl", pickle.dumps(Bomb(canary)))
    with pytest.raises(DataError, match=r"holds 'y\.pkl', which is no array"):
        list(numpy_format.read_archive(sized_file(tmp_path / "x.npz"), source=source("numpy", path="x.npz")))


REFUSED = [
    "m.pkl",
    "m.PT",
    "m.pth",
    "d.tar",
    "d.tar.gz",
    "d.tgz",
    "m.joblib",
    "d.h5",
    "d.lance",
    "d.lance/data/0.csv",
    "d.zip",
]


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("sklearn", "idx", "numpy")])
@pytest.mark.parametrize("file", REFUSED)
def test_kind_of_file_that_can_carry_code_is_refused_by_name(name, file, canary, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(pickle.dumps(Bomb(canary)))
    needed = {"sample_rate": 8, "duration_s": 1} if name == "sound" else {}
    with pytest.raises(
        DataError, match=r"is not opened: .* can carry code; the formats are csv, parquet, jsonl"
    ) as caught:
        list_files(source(name, path=file, **needed), str(tmp_path))
    assert all(known in str(caught.value) for known in FORMAT_NAMES)


def test_tar_under_another_name_is_refused_too(canary, tmp_path):
    with tarfile.open(tmp_path / "f.parquet", "w") as archive:
        link = tarfile.TarInfo("../../canary")
        link.type, link.linkname = tarfile.SYMTYPE, str(canary)
        archive.addfile(link)
        payload = pickle.dumps(Bomb(canary))
        info = tarfile.TarInfo("sample.pkl")
        info.size = len(payload)
        archive.addfile(info, io.BytesIO(payload))
    with pytest.raises(DataError, match=r"f\.parquet is not readable as Parquet"):
        read_all(tmp_path / "f.parquet", "parquet")


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet", "arrow", "text"])
def test_pickle_under_another_name_is_never_unpickled(name, protocol, canary, tmp_path):
    (tmp_path / "f").write_bytes(pickle.dumps(Bomb(canary), protocol=protocol))
    with contextlib.suppress(DataError):  # to a text format it may be rows like any others
        read_all(tmp_path / "f", name)
