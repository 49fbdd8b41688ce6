"""Recordings and pictures of few bytes that ask for much memory, or for much work: refused before either is spent."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raypipe.errors import RequestError
from raypipe.records import Column, Reading, Signature
from raypipe.serve import recordings
from raypipe.serve.base64_files import HoldsUpTheLoop
from raypipe.serve.pictures import Pictures
from raypipe.serve.recordings import Recordings
from tests.unit.data.test_sound import compressed, wav_of
from tests.unit.serve.hostile.refusals import LEAKS, in_little_memory

LONGEST_S = 0.3
"""Of one refusal, of processor time."""

RATE, NUM = 16_000, 16_000
SOUNDS = Signature(
    inputs=(Column(name="audio", dtype="float32", shape=(NUM,)),),
    task="regression",
    target="y",
    reading=Reading(format="sound", settings={"sample_rate": RATE, "duration_s": 1.0}),
)
PHOTOS = Signature(inputs=(Column(name="photo", dtype="uint8", shape=(224, 224, 3)),), task="regression", target="y")
TONE = 0.5 * np.sin(np.arange(300) / 7)[:, None]


def flac_that_says(num_frames: int) -> bytes:
    """A FLAC file of 300 samples whose header says another number, in 36 bits behind rate, channels and width."""
    data = bytearray(compressed(TONE[:, 0], "FLAC", RATE))
    at = data.index(b"fLaC") + 8 + 10
    (packed,) = struct.unpack_from(">Q", data, at)
    struct.pack_into(">Q", data, at, packed >> 36 << 36 | num_frames)
    return bytes(data)


def rf64_that_says(num_bytes: int) -> bytes:
    wav = wav_of(TONE, 1, 16, data_bytes=0xFFFFFFFF)
    return b"RF64" + wav[4:12] + b"ds64" + struct.pack("<IQQQI", 28, num_bytes, num_bytes, 0, 0) + wav[12:]


def wav_at(rate: int) -> bytes:
    return wav_of(TONE, 1, 16, rate=rate, bytes_a_second=0)


RECORDINGS: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "ten hours of FLAC": (lambda: flac_that_says(36_000 * RATE), 413, "more than 33554432"),
    "FLAC of all that 36 bits can say": (lambda: flac_that_says(2**36 - 1), 400, "the recording has"),
    "FLAC cut off": (lambda: compressed(TONE[:, 0], "FLAC")[:60], 400, "the recording"),
    "MP3 of nothing": (lambda: b"ID3" + bytes(40_000), 400, "the recording"),
    "OGG of nothing": (lambda: b"OggS" + bytes(40_000), 400, "the recording"),
    "WAV of four gigabytes": (lambda: wav_of(TONE, 1, 16, data_bytes=0xFFFFFFF0), 400, "ends after 300 of its"),
    "RF64 of all bytes there are": (lambda: rf64_that_says(2**63), 400, "ends after 300 of its"),
    "WAV of 65535 channels": (lambda: wav_of(TONE, 1, 16, channels=65535, frame=65534), 400, "a false header"),
    "WAV of eight channels": (lambda: wav_of(np.tile(TONE, (1, 8)), 1, 16, rate=RATE), 400, "has 8 channels"),
    "WAV without samples": (lambda: wav_of(TONE[:0], 1, 16), 400, "holds no samples"),
    "WAV of NaN": (lambda: wav_of(TONE * np.nan, 3, 32, rate=RATE), 400, "no finite number"),
    "an even part of a high rate": (lambda: wav_at(RATE * 2**17), 400, "have no small ratio"),
    "a high rate without a common part": (lambda: wav_at(262_139), 400, "have no small ratio"),
    "the highest rate": (lambda: wav_at(2**32 - 1), 400, "have no small ratio"),
    "no bytes": (lambda: b"", 400, "is no WAV"),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recording_that_asks_for_much_is_refused_for_little(name: str):
    make, status, words = RECORDINGS[name]
    refusal_of(lambda text: Recordings(SOUNDS).read(SOUNDS.inputs[0], [text], [0]), make(), status, words)


def refusal_of(read: Callable[[str], Any], data: bytes, status: int, words: str) -> None:
    text = base64.b64encode(data).decode()
    start = time.process_time()
    with in_little_memory(words), pytest.raises(RequestError) as caught:
        read(text)
    assert time.process_time() - start < LONGEST_S
    assert caught.value.status == status and words in caught.value.message, caught.value.message
    assert not LEAKS.search(caught.value.message)


def test_the_lowest_rate_is_read_for_little():
    start = time.process_time()
    (read,) = Recordings(SOUNDS).read(SOUNDS.inputs[0], [wav_at(1)], [0])
    assert time.process_time() - start < LONGEST_S and np.isfinite(read).all()


def test_more_short_recordings_than_the_model_may_read_are_refused_unread():
    many = [wav_of(TONE[:1], 1, 16, rate=RATE)] * 3000
    with in_little_memory("many"), pytest.raises(RequestError, match="of 3000 recordings, 16000 of each") as caught:
        Recordings(SOUNDS).read(SOUNDS.inputs[0], many, range(3000))
    assert caught.value.status == 413


def test_more_rates_than_are_kept_are_refused():
    files = [wav_at(RATE + 1000 * k) for k in range(1, 3 + recordings.MAX_RATES)]  # resampled for little each
    with pytest.raises(RequestError, match=r"row 8, field 'audio': .* more than 8 sample rates") as caught:
        Recordings(SOUNDS).read(SOUNDS.inputs[0], files, range(len(files)))
    assert caught.value.status == 413
    at_home = Recordings(SOUNDS).read(SOUNDS.inputs[0], [wav_at(RATE)] * 9, range(9))
    assert at_home.shape == (9, NUM)


def dot() -> bytes:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'raypipe[images]'")
    held = io.BytesIO()
    image.new("RGB", (1, 1)).save(held, "PNG")
    return held.getvalue()


def test_more_small_pictures_than_the_model_may_read_are_refused_unread():
    with in_little_memory("many"), pytest.raises(RequestError, match="10000 pictures have 50176 pixels each") as caught:
        Pictures(PHOTOS).read(PHOTOS.inputs[0], [dot()] * 10_000, range(10_000))
    assert caught.value.status == 413


def test_small_files_that_become_many_numbers_are_not_read_on_the_event_loop():
    async def read(reader: Any, column: Column, file: bytes) -> Any:
        return reader.read(column, [file] * 20, range(20))

    for reader, signature, file in (
        (Pictures(PHOTOS), PHOTOS, dot()),
        (Recordings(SOUNDS), SOUNDS, wav_of(TONE[:1], 1, 16, rate=RATE)),
    ):
        with pytest.raises(HoldsUpTheLoop):
            asyncio.run(read(reader, signature.inputs[0], file))
        assert len(reader.read(signature.inputs[0], [file] * 20, range(20))) == 20
