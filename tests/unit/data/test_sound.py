"""Recordings as recorders, telephones and programs write them: what becomes of each, what is told, what is refused."""

from __future__ import annotations

import importlib
import io
import re
import struct
import sys
import wave
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.formats import FORMATS, sound
from raypipe.data.formats.folders import Decoded, FileRows, RowReader
from raypipe.data.formats.labels import rows_of
from raypipe.data.table import resampling, sounds
from raypipe.data.table.marks import BAD, notes_of
from raypipe.data.table.sounds import SoundSettings
from raypipe.data.table.wav import pcm
from raypipe.errors import DataError
from tests.conftest import examples
from tests.unit.data.helpers import source

TONE = 0.5 * np.sin(np.arange(4000) / 7)
RATE = 8000
PCM = {8: ("u1", 128), 16: ("<i2", 2**15), 32: ("<i4", 2**31)}


def recording(values, *, rate=1000, width=2, channels=1):
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(np.asarray(values, {1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
    return data.getvalue()


def wav_of(samples: np.ndarray, encoding: int, bits: int, *, rate=RATE, is_extensible=False, data_bytes=None, **false):
    """A WAV file with a header of one's own; samples are bytes, or numbers in [-1, 1) [n, C]."""
    channels = samples.shape[1]
    if encoding == 3:
        raw = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 24:
        whole = (samples * 2**23).round().astype("<i4")
        raw = whole.reshape(-1, 1).view("u1").reshape(-1, 4)[:, :3].tobytes()
    else:
        kind, scale = PCM[bits]
        raw = ((samples * scale).round() + (scale if bits == 8 else 0)).astype(kind).tobytes()
    fields: dict[str, int] = {
        "channels": channels,
        "rate": rate,
        "frame": channels * bits // 8,
        "said_bits": bits,
        **false,
    }
    fields.setdefault("bytes_a_second", fields["rate"] * fields["frame"])
    names = ("channels", "rate", "bytes_a_second", "frame", "said_bits")
    form = struct.pack("<HHIIHH", 0xFFFE if is_extensible else encoding, *(fields[name] for name in names))
    if is_extensible:
        form += struct.pack("<HHIH", 22, bits, 0, encoding) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    note = b"LIST" + struct.pack("<I", 5) + b"abcde\0"  # of odd length, with its filling
    size = len(raw) if data_bytes is None else data_bytes
    chunks = note + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + raw
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def compressed(samples: np.ndarray, kind: str, rate: int = RATE, **settings: Any) -> bytes:
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile: pip install 'raypipe[sound]'")
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format=kind, **settings)
    return held.getvalue()


def read(data: bytes, num_samples: int = 4000, rate: int = RATE, **settings: Any) -> Decoded:
    return sound.decode(data, settings=SoundSettings(rate, num_samples, **settings))


def short(data: bytes, num_samples: int = 4, **settings: Any) -> list[float]:
    return read(data, num_samples, 1000, **settings).values.tolist()


@pytest.mark.parametrize("is_extensible", [False, True])
@pytest.mark.parametrize(("encoding", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_wav_of_every_width_is_read_with_and_without_an_extensible_header(encoding, bits, is_extensible):
    values, notes = read(wav_of(TONE[:, None], encoding, bits, is_extensible=is_extensible))
    assert values.dtype == np.float32 and np.abs(values - TONE).max() <= max(2.0**-bits, 2.0**-24) and not notes


def test_all_widths_have_one_scale():
    assert short(recording([128, 192], width=1)) == [0, 0.5, 0, 0]
    assert short(recording([0, 2**30], width=4)) == [0, 0.5, 0, 0]
    assert pcm(bytes([0, 0, 0x40, 0, 0, 0x80, 1, 0, 0]), 3).tolist() == [0.5, -1.0, 2**-23]


@pytest.mark.parametrize(("kind", "off"), [("FLAC", 2**-15), ("OGG", 0.1), ("MP3", 0.1)])
def test_compressed_recording_is_read_and_one_cut_short_is_refused(kind, off):
    data = compressed(TONE, kind)
    values, _ = read(data)
    assert np.abs(values - TONE)[200:-200].max() < off
    with pytest.raises(ValueError, match=r"."):
        read(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"ends|damaged|lost sync"):
        read(data[:-3])
    with pytest.raises(ValueError, match=r"."):
        read(data[:50])


def test_wav_that_is_compressed_is_read_where_soundfile_is_and_says_so_where_not(monkeypatch):
    data = compressed(TONE, "WAV", subtype="ULAW")
    assert np.abs(read(data).values - TONE).max() < 0.02
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match=r"has encoding 0x7; PCM and floats are read"):
        read(data)


def test_compressed_recordings_without_soundfile_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.wav").write_bytes(b"fLaC" + bytes(50))
    (tmp_path / "b.FLAC").write_bytes(b"x")
    fields = {"path": ".", "sample_rate": 1000, "duration_s": 1}
    with pytest.raises(DataError, match=r"reads b\.FLAC with soundfile, which is not installed") as caught:
        FORMATS["sound"].read(source("sound", **fields), str(tmp_path), 1)
    assert "pip install 'raypipe[sound]'" in str(caught.value.hint)
    with pytest.raises(ValueError, match="is no WAV; FLAC, OGG and MP3 are read with soundfile"):
        read(b"fLaC" + bytes(50))


def test_longer_and_shorter_recordings_lie_in_their_row_as_the_source_says():
    for align, kept, filled in (("start", [1, 2], [1, 2, 3, 0, 0]), ("end", [2, 3], [0, 0, 1, 2, 3])):
        values, (note,) = read(recording([1, 2, 3]), 2, 1000, align=align)
        assert (values * 2**15).tolist() == kept
        assert note == f"are longer than 0.002 s, and cut to that (data.source.align: {align})"
        values, (note,) = read(recording([1, 2, 3]), 5, 1000, align=align)
        assert (values * 2**15).tolist() == filled and "are shorter than 0.005 s, and filled with zeros" in note
    assert (np.array(short(recording([1, 2, 3]), 5, align="center")) * 2**15).tolist() == [0, 1, 2, 3, 0]
    assert (np.array(short(recording([1, 2, 3]), 1, align="center")) * 2**15).tolist() == [2]


def test_channels_are_averaged_or_one_is_chosen_and_more_than_two_want_a_choice():
    stereo = recording([[16384, -16384], [16384, 0]], channels=2)
    assert short(stereo, 2) == short(stereo, 2, channel="mean") == [0, 0.25]
    assert short(stereo, 2, channel=1) == [0.5, 0.5] and short(stereo, 2, channel=2) == [-0.5, 0]
    assert read(stereo, 2, 1000).notes == ["have two channels, whose mean is read"]
    assert read(stereo, 2, 1000, channel="mean").notes == []
    with pytest.raises(ValueError, match=r"has 2 channels; data\.source\.channel is 3"):
        short(stereo, channel=3)
    eight = recording([list(range(0, 8000, 1000))] * 3, channels=8)
    with pytest.raises(ValueError, match=r"has 8 channels: data\.source\.channel: mean reads the mean of all"):
        short(eight)
    assert short(eight, 1, channel="mean") == pytest.approx([3500 / 2**15]) and short(eight, 1, channel=1) == [0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no WAV, FLAC, OGG or MP3 recording"),
        (b"RIFFnothing of it", "is no WAV, FLAC, OGG or MP3 recording"),
        (b"RIFF\0\0\0\0WAVEfmt ", "ends before any sample"),
        (recording([]), "holds no samples"),
        (recording([1, 2, 3])[:-2], "ends after 2 of its 3 samples"),
        (wav_of(TONE[:, None], 1, 16, channels=0, frame=2), "has a false header: 0 channels of 8000"),
        (wav_of(TONE[:, None], 1, 16, channels=4), "has a false header: 4 channels .* are not 2 bytes a sample"),
        (wav_of(TONE[:, None], 1, 16, rate=44100, bytes_a_second=16000), "has a false header: .* and 16000 a second"),
        (wav_of(TONE[:, None], 1, 16, said_bits=64), "has a false header: .* 64 bits each"),
        (wav_of(TONE[:, None], 1, 16, data_bytes=2**30), "ends after 4000 of its 536870912 samples"),
        (wav_of(np.array([[0.0], [np.nan]]), 3, 32), "holds a sample that is no finite number"),
        (wav_of(TONE[:, None], 1, 16, rate=767_999), "767999 and 1000 samples a second have no small ratio"),
    ],
)
def test_file_that_is_no_recording_that_fits_is_a_bad_row_with_the_reason(data, why, tmp_path):
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "a.wav").write_bytes(recording([1]))
    (tmp_path / "yes" / "b.wav").write_bytes(data)
    fields = {"path": ".", "sample_rate": 1000, "duration_s": 0.004}
    rows = rows_of(source("wav", **fields), str(tmp_path))  # by its older name
    decode = partial(sound.decode, settings=SoundSettings(1000, 4))
    (table,) = RowReader("audio", (4,), "float32", decode, "recordings")(FileRows(tuple(rows)))
    assert table[BAD][0].as_py() is None and table["label"].to_pylist() == ["yes", "yes"]
    assert re.search(rf"b\.wav: .*({why})", table[BAD][1].as_py())
    assert notes_of(table.schema) == {
        "recordings are shorter than 0.004 s, and filled with zeros (data.source.align: start)": (1, "yes/a.wav")
    }


def test_writer_that_did_not_know_its_length_and_floats_beyond_one_are_read_and_told():
    values, notes = read(wav_of(TONE[:, None] * 4, 3, 32, data_bytes=2**32 - 1))
    assert np.array_equal(values, (TONE * 4).astype(np.float32))
    assert "do not say how long they are" in notes[1] and "go beyond -1 to 1, and stay as they are" in notes[0]


def test_compressed_recording_of_hours_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(sounds, "MAX_SAMPLES", 3999)
    with pytest.raises(ValueError, match="has 4,000 samples in each of 1 channels; 3,999 together are read"):
        read(compressed(TONE, "FLAC"))


@settings(max_examples=examples(150))
@given(st.data())
def test_recordings_with_bits_turned_are_bad_rows_or_other_sounds_and_never_an_error(data):
    kept = recording(list(range(50)))
    place, bit = data.draw(st.integers(0, len(kept) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(kept)
    changed[place] ^= 1 << bit
    try:
        values = read(bytes(changed), 50, 1000).values
    except ValueError:
        return
    assert values.shape == (50,) and np.isfinite(values).all()


@pytest.mark.parametrize(("rate", "wanted"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (16_000, 22_050)])
def test_resampling_equals_scipys_with_the_same_filter(rate, wanted):
    signal: Any = importlib.import_module("scipy.signal")  # importing it takes a second
    samples = np.random.default_rng(1).normal(size=3000)
    up, down = resampling.ratio(rate, wanted)
    taps = np.concatenate([resampling.weights(up, down)[:, ::-1].T.ravel(), [0.0]])  # phase by phase, in time
    expected = signal.resample_poly(samples, up, down, window=taps / up, padtype="constant")
    num = resampling.num_after(len(samples), up, down)
    begin, end = resampling.span(0, num, up, down)
    padded = np.pad(samples, (-begin, end - len(samples)))
    found = resampling.resampled(padded, 0, num, up, down)
    assert num == len(expected) and np.abs(found - expected).max() < 1e-12


def test_resampled_tone_is_the_tone_and_what_no_longer_fits_is_gone():
    seconds = np.arange(48_000) / 48_000
    for hz, level in ((1000, 0.5), (6500, 0.5), (8100, 0.0), (20_000, 0.0)):
        values, (note,) = read(
            wav_of(0.5 * np.sin(2 * np.pi * hz * seconds)[:, None], 3, 64, rate=48_000), 16_000, 16_000
        )
        expected = level * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)
        assert np.abs(values - expected)[200:-200].max() < 5e-5
    assert note == "have 48000 samples a second, resampled to 16000"
    assert read(wav_of(TONE[:, None], 1, 16), 8000, 16_000).notes == [
        "have 8000 samples a second, resampled to 16000; above 4000 Hz they hold nothing"
    ]


def test_part_of_a_resampled_recording_has_the_bits_of_the_whole():
    data = wav_of(np.random.default_rng(2).uniform(-1, 1, (9000, 1)), 3, 64, rate=22_050)
    whole = read(data, 6531, 16_000).values
    assert np.array_equal(read(data, 1000, 16_000).values, whole[:1000])
    assert np.array_equal(read(data, 1000, 16_000, align="end").values, whole[-1000:])
    assert np.array_equal(read(data, 1001, 16_000, align="center").values, whole[2765:3766])
