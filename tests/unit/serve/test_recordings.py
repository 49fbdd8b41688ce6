"""Recordings in requests: the numbers of the same file in the training data, in every form; and what is refused."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from raypipe.data.formats.sound import decode
from raypipe.data.table.sounds import SoundSettings
from raypipe.records import Column, Reading, Signature
from raypipe.serve import recordings
from raypipe.serve.app import ModelApp
from raypipe.serve.recordings import Recordings
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app, model_version
from tests.unit.data.test_sound import compressed, wav_of
from tests.unit.serve.sent_files import answer_of, refusal_of, text_of

pytestmark = pytest.mark.thorough

RATE, NUM = 8000, 400
FIELDS = {"sample_rate": RATE, "duration_s": 0.05}
TONE = 0.5 * np.sin(np.arange(300) / 7)[:, None]
WAV = wav_of(TONE, 1, 16, rate=RATE)


def model_of_sounds(store: LocalFolder, **fields: Any) -> ModelApp:
    columns = {"audio": np.random.default_rng(0).normal(0, 0.1, (12, NUM)).astype(np.float32)}
    dataset = tiny_dataset(store, columns, np.arange(12) % 3)
    reading = Reading(format="sound", settings={**FIELDS, **fields})
    signature = dataset.signature.model_copy(update={"reading": reading})
    return model_app(store, model_version(store, dataset.model_copy(update={"signature": signature}), name="sounds"))


@pytest.mark.parametrize("path", ["/predict", "/v1/models/sounds:predict", "/invocations", "/predictions/sounds"])
def test_a_recording_gets_the_answer_of_its_numbers_to_the_bit(path: str, store: LocalFolder):
    app = model_of_sounds(store)
    other_rate = wav_of(np.tile(TONE, (1, 2)), 3, 32, rate=44_100)
    for data in (WAV, other_rate):
        numbers = decode(data, settings=SoundSettings(RATE, NUM)).values
        expected = answer_of(app, {"instances": [{"audio": numbers.tolist()}]}, path)
        text = text_of(data)
        for value in (text, f"data:audio/wav;base64,{text}", {"b64": text}):
            assert answer_of(app, {"instances": [{"audio": value}]}, path) == expected
        bare = ask(app, "POST", "/predictions/sounds", data, headers={"content-type": "audio/wav"})
        assert path != "/predictions/sounds" or bytes(bare.body) == expected


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_compressed_recordings_are_read_as_files_are(kind: str, store: LocalFolder):
    app, data = model_of_sounds(store), compressed(TONE[:, 0], kind)
    numbers = decode(data, settings=SoundSettings(RATE, NUM)).values
    expected = answer_of(app, {"instances": [numbers.tolist()]})
    assert answer_of(app, {"instances": [text_of(data)]}) == expected


@pytest.mark.parametrize("fields", [{"channel": 2}, {"channel": "mean"}, {"align": "end"}, {"align": "center"}])
def test_settings_of_training_hold(fields: dict[str, Any]):
    column = Column(name="audio", dtype="float32", shape=(NUM,))
    reading = Reading(format="wav", settings={**FIELDS, **fields})  # an older name of sound
    signature = Signature(inputs=(column,), task="regression", target="y", reading=reading)
    data = wav_of(np.random.default_rng(1).uniform(-1, 1, (900, 2)), 1, 24, rate=16_000)
    (read,) = Recordings(signature).read(column, [text_of(data)], [0])
    assert np.array_equal(read, decode(data, settings=SoundSettings(RATE, NUM, **fields)).values)
    for forged in ({"sample_rate": "x"}, {"duration_s": 1.0}, {"channel": -1}, {"align": "middle"}):
        forged_reading = Reading(format="sound", settings={**FIELDS, **forged})
        assert not Recordings(signature.model_copy(update={"reading": forged_reading})).columns


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no recording", "row 0, field 'audio': the recording is no WAV, FLAC, OGG or MP3 recording"),
        (WAV[:-4], "the recording ends after 298 of its 300 samples"),
        (wav_of(TONE[:0], 1, 16), "the recording holds no samples"),
        (wav_of(np.tile(TONE, (1, 8)), 1, 16), "the recording has 8 channels"),
        (wav_of(TONE, 1, 16, rate=RATE, bytes_a_second=1), "the recording has a false header"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_row_and_field(data: bytes, words: str, store: LocalFolder):
    status, message = refusal_of(model_of_sounds(store), "audio", text_of(data))
    assert status == 400 and words in message and "data.source" not in message


def test_samples_are_counted_before_they_are_read(store: LocalFolder, monkeypatch: pytest.MonkeyPatch):
    app = model_of_sounds(store)
    monkeypatch.setattr(recordings, "MAX_SAMPLES", 1799)
    long = text_of(wav_of(np.tile(TONE, (3, 1)), 1, 16, rate=RATE))
    body = {"instances": [long] * 2}
    assert ask(app, "POST", "/predict", json.dumps({"instances": [long]}).encode()).status_code == 200
    response = ask(app, "POST", "/predict", json.dumps(body).encode())
    assert response.status_code == 413 and b"row 1, field 'audio'" in bytes(response.body)


def test_without_soundfile_wav_is_read_and_others_are_told_why_not(store: LocalFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    app = model_of_sounds(store)
    assert answer_of(app, {"instances": [text_of(WAV)]})
    column = app.signature.inputs[0]
    with pytest.raises(recordings.RequestError, match=r"pip install 'raypipe\[sound\]'") as caught:
        Recordings(app.signature).read(column, [b"fLaC" + bytes(40)], [0])
    assert caught.value.status == 415


def test_a_model_of_sounds_from_arrays_takes_no_files():
    column = Column(name="audio", dtype="float32", shape=(NUM,))
    assert not Recordings(Signature(inputs=(column,), task="regression", target="y")).columns
