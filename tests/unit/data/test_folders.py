"""Files in folders, pictures above all: what each file becomes, where its label comes from, and what is a bad row."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from raypipe.data.formats import FORMATS, images
from raypipe.data.formats.folders import FileRows, RowReader
from raypipe.data.formats.labels import rows_of
from raypipe.data.sources.listing import list_files
from raypipe.data.table.images import CHANNELS, PixelSettings
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError
from tests.unit.data.helpers import source


def picture(size=(4, 3), mode="RGB", kind="PNG", seed=0):
    """The bytes of an image of `size` height and width."""
    shape = (*size, *{"RGB": (3,), "RGBA": (4,)}.get(mode, ()))
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels, mode if mode in ("RGB", "RGBA", "L") else None).save(data, kind)
    return data.getvalue()


def put(folder, **contents):
    for name, data in contents.items():
        path = folder / name.replace("__", "/").replace("_png", ".png").replace("_wav", ".wav").replace("_jpg", ".jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_images(folder, **fields):
    """All rows, without Ray."""
    spec = source("images", **{"path": ".", **fields})
    rows = rows_of(spec, str(folder))
    size = spec.size or (4, 3)
    settings = PixelSettings(spec.mode, size, spec.size is not None, spec.transparency)
    decode = partial(images.decode, settings=settings, says="a.png")
    shape = (*size, *CHANNELS[spec.mode])
    (table,) = RowReader("image", shape, settings.dtype, decode, "pictures")(FileRows(tuple(rows)))
    return table


def test_label_is_the_name_of_the_folder_and_file_the_name_below_the_path(tmp_path):
    put(tmp_path, in__cat__a_png=picture(), in__cat__deep__b_png=picture(), in__dog__a_jpg=picture(kind="JPEG"))
    table = read_images(tmp_path, path="in")
    assert table["label"].to_pylist() == ["cat", "deep", "dog"]
    assert table["file"].to_pylist() == ["cat/a.png", "cat/deep/b.png", "dog/a.jpg"]
    assert read_images(tmp_path, path="in/*/*.png")["file"].to_pylist() == ["cat/a.png"]
    assert read_images(tmp_path, path=str(tmp_path / "in" / "cat"))["file"].to_pylist() == ["a.png", "deep/b.png"]
    assert read_images(tmp_path, path="in/cat/a.png")["file"].to_pylist() == ["a.png"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_come_from_a_table_and_a_file_without_one_is_bad(kind, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    put(tmp_path, in__a_png=picture(), in__b_png=picture(), in__c_png=picture())
    table = pa.table({"name": ["a.png", "b.png", "gone.png"], "breed": ["07", "8", "9"]})
    if kind == "csv":
        (tmp_path / "t.csv").write_text("name,breed,note\na.png,07,x\nb.png,8,y\ngone.png,9,z\n")
    elif kind == "jsonl":
        (tmp_path / "t.jsonl").write_text(
            "".join(f'{{"name": "{r["name"]}", "breed": "{r["breed"]}"}}\n' for r in table.to_pylist())
        )
    else:
        pq.write_table(table, tmp_path / "t.parquet")
    labels = {"path": f"t.{kind}", "file_column": "name", "label_column": "breed"}
    found = read_images(tmp_path, path="in", label=labels)
    assert found["label"].to_pylist() == ["07", "8", None, "9"]
    assert found[BAD].to_pylist() == [
        None,
        None,
        f"c.png: has no label in t.{kind}",
        f"gone.png: is in t.{kind}, but there is no such file",
    ]
    spec = source("images", path="in", label=labels)
    assert [file.name for file in list_files(spec, str(tmp_path))][-1] == f"t.{kind}"  # a change of it is seen


def test_labels_that_name_a_file_twice_are_refused(tmp_path):
    put(tmp_path, in__a_png=picture())
    (tmp_path / "t.csv").write_text("file,label\na.png,x\na.png,y\n")
    with pytest.raises(DataError, match=r"t\.csv names the file 'a\.png' twice"):
        read_images(tmp_path, path="in", label={"path": "t.csv"})
    (tmp_path / "t.csv").write_text("file,kind\na.png,x\n")
    (tmp_path / "t.jsonl").write_text('{"file": "a.png", "kind": "x"}\n')
    for name in ("t.csv", "t.jsonl"):
        with pytest.raises(DataError, match="column 'label' is not there"):
            read_images(tmp_path, path="in", label={"path": name})


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(10**6)))
)
DEEP = io.BytesIO()
Image.fromarray(np.zeros((4, 3), np.uint16)).save(DEEP, "PNG")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no image", "is no PNG, JPEG, WebP, GIF or TIFF picture"),
        (b"", "is no PNG, JPEG, WebP, GIF or TIFF picture"),
        (picture()[:60], "no PNG|truncated|broken"),
        (picture((4, 3), kind="JPEG")[:-20], "truncated"),
        (BOMB, "has 3,600,000,000 pixels, and at most 89,478,485 are read, as others may be a decompression bomb"),
        (DEEP.getvalue(), "has 16 bits a pixel, and mode RGB has 8: data.source.mode: L16 keeps them"),
        (picture((5, 3)), r"is 5 x 3 pixels, a\.png 4 x 3; data\.source\.size makes all images one size"),
    ],
)
def test_file_that_is_no_image_that_fits_is_a_bad_row_with_the_reason(data, why, tmp_path):
    put(tmp_path, a_png=picture(), b_png=data, c_png=picture(seed=1))
    table = read_images(tmp_path)
    assert [reason is None for reason in table[BAD].to_pylist()] == [True, False, True]
    assert re.search(rf"b\.png: .*({why})", table[BAD][1].as_py())
    assert not table["image"].to_pylist()[1].any() and table["image"].to_pylist()[2].any()


def test_png_with_bits_turned_is_a_bad_row_or_other_pixels_and_never_an_error(tmp_path):
    data = picture((16, 16))
    for seed in range(200):
        random = np.random.default_rng(seed)
        changed = bytearray(data)
        changed[random.integers(len(data))] ^= 1 << random.integers(8)
        put(tmp_path, a_png=bytes(changed))
        assert read_images(tmp_path, size=(16, 16)).num_rows == 1


def test_file_of_a_folder_that_may_not_be_read_is_a_bad_row_with_the_reason(tmp_path, unprivileged):
    put(tmp_path, in__a_png=picture(), in__b_png=picture(), in__c_png=picture(seed=1))
    os.chmod(tmp_path / "in" / "b.png", 0)
    with unprivileged():
        table = read_images(tmp_path, path="in")
    assert [reason is None for reason in table[BAD].to_pylist()] == [True, False, True]
    assert "b.png cannot be read: Permission denied" in table[BAD][1].as_py()


def test_size_given_resizes_and_mode_l_is_grey(tmp_path):
    put(tmp_path, a_png=picture((8, 6)), b_png=picture((2, 9), mode="L"), c_png=picture((4, 4), mode="RGBA"))
    colour = read_images(tmp_path, size=(6, 5))["image"].to_pylist()
    grey = read_images(tmp_path, size=(6, 5), mode="L")["image"].to_pylist()
    assert {image.shape for image in colour} == {(6, 5, 3)} and {image.shape for image in grey} == {(6, 5)}
    assert (colour[1][..., 0] == grey[1]).all()
    same = read_images(tmp_path, path="a.png", size=(8, 6))["image"].to_pylist()[0]
    assert (same == np.asarray(Image.open(tmp_path / "a.png"))).all()


def test_palette_and_black_and_white_images_become_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    for name, mode in {"a.png": "P", "b.png": "1", "c.png": "LA"}.items():
        image.convert(mode).save(tmp_path / name)
    for values in read_images(tmp_path, size=(2, 2))["image"].to_pylist():
        assert values.tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


def test_source_without_one_image_is_refused_before_reading(tmp_path):
    put(tmp_path, a_png=b"x", b_png=b"y")
    with pytest.raises(DataError, match=r"none of the 2 files of data\.source is a readable image"):
        FORMATS["images"].read(source("images", path="."), str(tmp_path), 1)


def test_images_without_pillow_are_refused_with_the_remedy(tmp_path, monkeypatch):
    put(tmp_path, a_png=picture())
    monkeypatch.setitem(sys.modules, "PIL", None)  # it is installed here
    with pytest.raises(DataError, match="needs Pillow") as caught:
        FORMATS["images"].read(source("images", path="."), str(tmp_path), 1)
    assert caught.value.hint == "pip install 'raypipe[images]'"
