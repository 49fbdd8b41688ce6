"""Pictures as cameras, scanners and drawing programs write them: what becomes of each, what is told and refused."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from raypipe.data.checks.schema import types_of
from raypipe.data.formats import images
from raypipe.data.formats.datasource import read_group
from raypipe.data.formats.folders import FileRows, RowReader
from raypipe.data.formats.labels import rows_of
from raypipe.data.masking import Masking
from raypipe.data.table.images import PixelSettings, TooManyPixels
from raypipe.data.table.marks import BAD, note_lines, notes_of
from raypipe.spec.masking import MaskSpec
from tests.unit.data.helpers import source

KINDS = ["PNG", "JPEG", "WEBP", "GIF", "TIFF"]
LOSSLESS = ["PNG", "WEBP", "TIFF"]
EXIF = Image.Exif()
GREEN, CLEAR_RED = (0, 255, 0, 255), (255, 0, 0, 0)


def saved(image, kind, **settings):
    held = io.BytesIO()
    if kind == "WEBP":
        settings = {"lossless": True, "exact": True, **settings}
    image.save(held, kind, **settings)
    return held.getvalue()


def drawn(height=6, width=4, channels=(3,)):
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels)).astype(np.uint8)


def read(data, **settings):
    return images.decode(data, settings=PixelSettings(**settings))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read(kind):
    colours = np.repeat(drawn(2, 2), 16, axis=0).repeat(16, axis=1)
    values, notes = read(saved(Image.fromarray(colours), kind))
    assert values.shape == (32, 32, 3) and values.dtype == np.uint8
    assert np.abs(values.astype(int) - colours).mean() < (12 if kind == "JPEG" else 1e-9)
    assert [note.split(":")[0] for note in notes] == (["have a palette"] if kind == "GIF" else [])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_as_its_orientation_says(kind, orientation):
    upright = np.repeat(drawn(2, 3), 8, axis=0).repeat(8, axis=1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    EXIF[274] = orientation
    values, notes = read(saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=EXIF), size=(16, 24))
    assert np.abs(values.astype(int) - upright).mean() < (12 if kind == "JPEG" else 1e-9)
    assert notes == ([] if orientation == 1 else ["are turned as their EXIF orientation says"])


def test_torn_exif_leaves_a_picture_as_it_lies():
    data = saved(Image.fromarray(drawn()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\0")
    assert np.array_equal(read(data).values, drawn())


def tiff_where_white_is_zero(grey):
    data = bytearray(saved(Image.fromarray(grey), "TIFF"))
    tag = struct.pack("<HHI", 262, 3, 1)  # photometric interpretation, one short
    place = data.index(tag) + len(tag)
    data[place : place + 2] = struct.pack("<H", 0)
    return bytes(data)


def test_grey_of_16_bits_keeps_its_bits_in_mode_l16_and_is_refused_in_others():
    grey = (drawn(channels=()).astype(np.uint16) << 8) + 7
    for data in (saved(Image.fromarray(grey), "PNG"), saved(Image.fromarray(grey), "TIFF")):
        values = read(data, mode="L16").values
        assert values.dtype == np.uint16 and np.array_equal(values, grey)
        small = read(data, mode="L16", size=(3, 2), is_resized=True).values
        means = grey.reshape(3, 2, 2, 2).mean(axis=(1, 3))
        assert small.shape == (3, 2) and np.corrcoef(small.ravel(), means.ravel())[0, 1] > 0.8
        for mode in ("L", "RGB"):
            with pytest.raises(ValueError, match=r"has 16 bits a pixel, .* data\.source\.mode: L16 keeps them"):
                read(data, mode=mode)
    assert np.array_equal(read(tiff_where_white_is_zero(grey), mode="L16").values, 65535 - grey)
    shallow = drawn(channels=())
    assert np.array_equal(read(saved(Image.fromarray(shallow), "PNG"), mode="L16").values, shallow * np.uint16(257))


def test_transparency_is_left_out_and_told_or_laid_on_a_colour_or_kept():
    image = Image.new("RGBA", (2, 1))
    image.putdata([GREEN, CLEAR_RED])
    for kind in LOSSLESS:
        data = saved(image, kind)
        values, (note,) = read(data)
        assert values.tolist() == [[[0, 255, 0], [255, 0, 0]]] and "data.source.transparency: white" in note
        for colour, level in (("white", 255), ("black", 0)):
            values, notes = read(data, transparency=colour)
            assert values.tolist() == [[[0, 255, 0], [level] * 3]] and not notes
        assert read(data, transparency="white", mode="L").values[0, 1] == 255
        values, notes = read(data, mode="RGBA")
        assert np.array_equal(values, [[GREEN, CLEAR_RED]]) and not notes


def test_palette_gives_its_colours_and_its_transparent_one_counts():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    values, notes = read(saved(image, "PNG"))
    assert values.tolist() == [[[10, 20, 30], [40, 50, 60]]] and "its colours are read" in notes[0]
    values, notes = read(saved(image, "PNG", transparency=1), transparency="white")
    assert values.tolist() == [[[10, 20, 30], [255] * 3]] and len(notes) == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_read_and_that_is_told(kind):
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    values, notes = read(saved(first, kind, save_all=True, append_images=[second]))
    assert values[..., 0].min() == 255 and values[..., 2].max() == 0
    assert "hold several frames, of which the first is read" in notes


def test_colours_of_16_bits_and_cmyk_are_told():
    rows = b"".join(b"\0" + bytes([200, 7, 100, 7, 50, 7] * 2) for _ in range(3))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 3, 16, 2, 0, 0, 0))
    deep = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    values, notes = read(deep)
    assert values[0, 0].tolist() == [200, 100, 50] and "16 bits, of which the upper 8 are read" in notes[0]
    assert "CMYK" in read(saved(Image.new("CMYK", (2, 2)), "TIFF")).notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_picture_is_refused_and_never_read_in_part(kind):
    data = saved(Image.fromarray(drawn(40, 30)), kind)
    whole, num_refused = read(data).values, 0
    cuts = range(0, len(data) - 1, max(1, len(data) // 60))
    for cut in cuts:
        try:
            found = read(data[:cut]).values
        except Exception:  # decoders fail in every way there is, and whoever reads rows sets each aside
            num_refused += 1
            continue
        assert np.array_equal(found, whole), f"{cut} of {len(data)} bytes"  # what is cut off was behind its pixels
    assert num_refused > len(cuts) * 0.9


def huge(kind):
    """30,000 x 30,000 pixels by its header, in few bytes."""
    data = bytearray(saved(Image.new("L", (8, 8)), kind))
    side = 30_000
    if kind == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif kind == "JPEG":
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    else:
        for tag in (256, 257):
            (place,) = (
                m.end() for m in re.finditer(re.escape(struct.pack("<H", tag)) + rb"[\3\4]\x00\x01\x00{3}", data)
            )
            data[place : place + 4] = struct.pack("<I", side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
def test_picture_of_900_million_pixels_is_refused_by_its_header(kind):
    data = huge(kind)
    tracemalloc.start()
    with pytest.raises(TooManyPixels, match="has 900,000,000 pixels, and at most 89,478,485 are read"):
        read(data, size=(8, 8), is_resized=True)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_what_is_worth_telling_is_counted_with_the_first_file(tmp_path):
    (tmp_path / "cat").mkdir()
    plain = Image.fromarray(drawn(4, 3))
    plain.save(tmp_path / "cat" / "a.png")
    for name in ("b.gif", "c.gif"):
        plain.save(tmp_path / "cat" / name, save_all=True, append_images=[plain.rotate(180)])
    (tmp_path / "cat" / "d.tiff").write_bytes(b"II*\0")
    spec = source("images", path=".")
    rows = rows_of(spec, str(tmp_path))
    decode = images.Images().row_reader(spec, rows).decode
    (table,) = RowReader("image", (4, 3, 3), "uint8", decode, "pictures")(FileRows(tuple(rows)))
    assert table[BAD].to_pylist()[:3] == [None] * 3 and "cat/d.tiff: " in table[BAD].to_pylist()[3]
    assert notes_of(table.schema)["pictures hold several frames, of which the first is read"] == (2, "cat/b.gif")


def test_source_that_keeps_transparency_and_lays_it_on_white_is_refused():
    with pytest.raises(ValueError, match="mode: RGBA keeps transparency"):
        source("images", path=".", mode="RGBA", transparency="white")


def test_notes_of_several_reads_are_told_once_and_without_names_that_are_masked(tmp_path):
    for number in range(3):
        Image.fromarray(drawn(4, 3)).convert("P").save(tmp_path / f"{number}.png")
    spec = source("images", path=".")
    _, reader = images.Images().plan(spec, str(tmp_path))
    parts = [FileRows((row,)) for row in rows_of(spec, str(tmp_path))]
    (table,) = read_group(parts, reader, None)
    note = "pictures have a palette: its colours are read, not their numbers in it"
    assert note_lines(types_of(table).notes) == [f"3 {note} (the first: 0.png)"]
    masking = Masking([MaskSpec.model_validate({"columns": ["file"], "method": "drop"})])
    (table,) = read_group(parts, reader, None, (), masking)
    assert note_lines(types_of(table).notes) == [f"3 {note}"]
