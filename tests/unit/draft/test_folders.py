"""Pipeline files for folders of pictures and recordings: the network and the features fit what the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.model.build import build_model
from raypipe.records import Column, Signature
from raypipe.testing.fakes import fit_columns
from tests.unit.draft.projects import RANDOM, drafted, plan, write_csv, write_picture, write_recording


def test_folders_of_pictures_get_a_convolutional_network_for_their_size(tmp_path: Path):
    for i in range(12):
        write_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png")
    (tmp_path / "pets" / "dog" / "broken.png").write_bytes(b"no picture")
    spec, text, row = drafted(tmp_path, tmp_path / "pets")
    assert spec.data.source.model_dump()["size"] == (16, 20) and spec.model.kind == "cnn"
    assert spec.data.split.kind == "stratified" and "cat (6), dog (7)" in text
    assert np.shape(row["image"]) == (16, 20, 3)
    assert "register" in plan(tmp_path)


def test_large_grey_pictures_in_ready_made_splits_are_made_smaller_and_not_divided_again(tmp_path: Path):
    for split in ("train", "valid", "test"):
        for i in range(4):
            write_picture(
                tmp_path / "pets" / split / ("cat", "dog")[i % 2] / f"{i}.png", (300, 200 + 50 * (i % 2)), "L"
            )
    spec, text, row = drafted(tmp_path, tmp_path / "pets")
    assert spec.data.split.kind == "directories" and spec.data.split.folders["val"] == "valid"
    source = spec.data.source.model_dump()
    assert source["mode"] == "L" and max(source["size"]) == 64 and "guessed: the files have up to" in text
    assert np.shape(row["image"]) == source["size"]


def test_folders_of_recordings_get_features_of_sound_for_their_rate_and_length(tmp_path: Path):
    for i in range(8):
        write_recording(tmp_path / "calls" / ("owl", "wren")[i % 2] / f"{i}.wav", 16000, 0.1 * (1 + i % 3))
    spec, _, row = drafted(tmp_path, tmp_path / "calls")
    source = spec.data.source.model_dump()
    assert (source["sample_rate"], source["duration_s"]) == (16000, 0.3) and len(row["audio"]) == 4800
    assert [t.kind for t in spec.data.transforms] == ["log_mel", "normalize"] and spec.model.kind == "audio_cnn"


@pytest.mark.parametrize("kinds", [("flac",), ("flac", "wav", "mp3", "ogg")])
def test_recordings_of_any_kind_are_drafted_as_sound(tmp_path: Path, kinds: tuple[str, ...]):
    soundfile: Any = pytest.importorskip("soundfile", reason="needs soundfile: pip install 'raypipe[sound]'")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12_000)
    for i in range(12):
        path = tmp_path / "calls" / ("owl", "wren")[i % 2] / f"{i}.{kinds[i % len(kinds)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise, 16_000)
    spec, text, row = drafted(tmp_path, tmp_path / "calls")
    source = spec.data.source.model_dump()
    assert (source["format"], source["sample_rate"]) == ("sound", 16_000) and "owl (6), wren (6)" in text
    assert source["duration_s"] == pytest.approx(0.75, abs=0.1)  # MP3 fills its last frame
    assert len(row["audio"]) == round(16_000 * source["duration_s"])


def test_recordings_of_many_channels_are_mixed_and_empty_ones_are_bad_files(tmp_path: Path):
    for i in range(8):
        write_recording(tmp_path / "calls" / ("owl", "wren")[i % 2] / f"{i}.wav", num_channels=8)
    write_recording(tmp_path / "calls" / "owl" / "empty.wav", seconds=0)
    spec, text, row = drafted(tmp_path, tmp_path / "calls")
    assert spec.data.source.model_dump()["channel"] == "mean" and "8 of 8 have many channels" in text
    assert spec.data.bad_rows.max_frac == 0.222 and "1 of 9 files that were looked at cannot be read" in text
    assert len(row["audio"]) == 4000


@pytest.mark.parametrize("seconds", [0.0005, 0.004, 0.02, 0.1])
def test_short_recordings_get_bands_that_their_windows_tell_apart_and_a_network_that_fits(
    tmp_path: Path, seconds: float
):
    for i in range(8):
        write_recording(tmp_path / "clicks" / ("a", "b")[i % 2] / f"{i}.wav", 8000, seconds)
    spec, _, row = drafted(tmp_path, tmp_path / "clicks")
    audio = Column(name="audio", dtype="float32", shape=(len(row["audio"]),))
    values = np.array([row["audio"], row["audio"][::-1]], np.float32)
    fitted = fit_columns(spec.data.transforms, [audio], [{"audio": values}])
    shape = fitted.apply({"audio": values}, [audio]).shape[1:]
    signature = Signature(inputs=(audio,), task="classification", target="label", classes=("a", "b"))
    assert build_model(spec.model, signature, shape, None) is not None


def test_pictures_of_16_bits_and_turned_ones_keep_their_depth_and_their_sides(tmp_path: Path):
    for i in range(8):
        path = tmp_path / "scans" / ("a", "b")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        deep = Image.fromarray(RANDOM.integers(0, 2**16, (16, 24)).astype(np.uint16))
        deep.save(path, exif=exif_of(6) if i % 2 else None)
    spec, text, row = drafted(tmp_path, tmp_path / "scans")
    assert spec.data.source.model_dump()["mode"] == "L16" and "colours become grey" not in text
    assert np.shape(row["image"]) == (16, 24) and np.max(row["image"]) > 255
    for path in (tmp_path / "scans").rglob("*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path.with_suffix(".jpg"), exif=exif_of(6))
        path.unlink()
    spec, text, _ = drafted(tmp_path / "jpeg", tmp_path / "scans")
    assert spec.data.source.model_dump()["size"] == (24, 16) and "their own size" in text


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_files_of_other_formats_beside_those_that_are_read_are_told(tmp_path: Path):
    for i in range(8):
        write_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png")
    write_csv(tmp_path / "pets" / "labels.csv", {"file": ["0.png"], "label": ["cat"]})
    (tmp_path / "pets" / "notes.md").write_text("seen in spring")
    _, text, _ = drafted(tmp_path, tmp_path / "pets")
    assert "# beside these files lie others, which are not read: 1 of format csv, 1 of format text_windows" in text


def test_folders_whose_files_end_in_capitals_are_drafted_like_others(tmp_path: Path):
    for i in range(6):
        write_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"Dsc{i}.Jpg")
    spec, _, row = drafted(tmp_path, tmp_path / "pets")
    assert spec.data.source.format == "images" and np.shape(row["image"]) == (16, 20, 3)
    for month in ("JAN", "FEB"):
        columns = {"area": RANDOM.normal(60, 9, 80).round(1).tolist(), "sold": ["yes", "no"] * 40}
        write_csv(tmp_path / "shop" / f"{month}.CSV", columns)
    (tmp_path / "q").mkdir()
    spec, _, row = drafted(tmp_path / "q", tmp_path / "shop")
    assert spec.data.source.format == "csv" and list(row) == ["area"]
