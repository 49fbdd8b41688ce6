from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

from raypipe.data.transforms import FittedTransforms, audio
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import LogMelTransform
from raypipe.testing.fakes import fit_columns

RATE = 8000
SOUNDS = (0.3 * np.random.default_rng(0).normal(size=(12, 1000))).astype(np.float32)
SOUND = Column(name="a", dtype="float32", shape=(1000,))

SETTINGS: list[dict[str, Any]] = [
    {"window_samples": 256, "hop_samples": 100, "num_mels": 20},
    {"window_samples": 256, "hop_samples": 300, "num_mels": 20, "mel_scale": "htk", "output": "db"},
    {"window_samples": 200, "hop_samples": 7, "num_mels": 9, "low_hz": 300.0, "high_hz": 3400.0},
    {"window_samples": 1000, "num_mels": 30, "mel_scale": "htk", "low_hz": 50.0},
    {"window_samples": 255, "num_mels": 12, "output": "db", "floor": 10.0},
]


def fit(column: Column = SOUND, **fields: Any) -> FittedTransforms:
    spec = LogMelTransform.model_validate({"kind": "log_mel", "columns": ["a"], "sample_rate": RATE, **fields})
    return fit_columns([spec], [column], [])


def mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def hz_of(value: float, scale: str) -> float:
    """The inverse of `mel`, by halves."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mel(middle, scale) < value else (low, middle)
    return low


def band_powers(power_FN: np.ndarray, hz_F: np.ndarray, num_mels: int, low: float, high: float, scale: str) -> Any:
    """Straight from the formula: triangle by triangle, frequency by frequency."""
    ends = mel(low, scale), mel(high, scale)
    corners = [hz_of(ends[0] + (ends[1] - ends[0]) * i / (num_mels + 1), scale) for i in range(num_mels + 2)]
    powers = np.zeros((num_mels, power_FN.shape[1]))
    for m in range(num_mels):
        left, peak, right = corners[m : m + 3]
        for f, hz in enumerate(hz_F):
            if left < hz < right:
                height = (hz - left) / (peak - left) if hz <= peak else (right - hz) / (right - peak)
                powers[m] += height * (2 / (right - left) if scale == "slaney" else 1) * power_FN[f]
    return powers


@pytest.mark.parametrize("fields", SETTINGS)
def test_log_mel_equals_scipys_spectrum_through_bands_from_the_formula(fields: dict[str, Any]):
    # importing it takes a second; its annotations know neither boundary=None nor what get_window gives
    signal: Any = importlib.import_module("scipy.signal")
    found = fit(**fields).apply({"a": SOUNDS}, [SOUND])
    spec = LogMelTransform.model_validate({"kind": "log_mel", "columns": ["a"], "sample_rate": RATE, **fields})
    window = spec.window_samples
    for sound, done in zip(SOUNDS[:3], found, strict=False):
        # scipy takes no hop longer than a frame, so frames are cut out of those of hop 1
        hz_F, _, spectrum_FN = signal.stft(
            sound.astype(np.float64), RATE, "hann", window, window - 1, boundary=None, padded=False
        )
        spectrum_FN = spectrum_FN[:, :: spec.hop_samples] * signal.get_window("hann", window).sum()
        high = spec.high_hz or RATE / 2
        power_MN = band_powers(np.abs(spectrum_FN) ** 2, hz_F, spec.num_mels, spec.low_hz, high, spec.mel_scale)
        power_MN = np.maximum(power_MN, spec.floor)
        expected = 10 * np.log10(power_MN) if spec.output == "db" else np.log(power_MN)
        assert done.shape == expected.shape
        np.testing.assert_allclose(done, expected, rtol=1e-6, atol=1e-5)


def test_log_mel_of_silence_is_the_floor():
    done = fit(window_samples=256, num_mels=20, floor=1e-4).apply({"a": np.zeros_like(SOUNDS)}, [SOUND])
    np.testing.assert_allclose(done, math.log(1e-4), rtol=1e-6)


def test_log_mel_of_a_tone_is_loudest_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(1000) / RATE).astype(np.float32)[None]
    done = fit(window_samples=256, num_mels=20, mel_scale="htk").apply({"a": tone}, [SOUND])[0]
    width = mel(RATE / 2, "htk") / 21
    assert (done.argmax(axis=0) == round(mel(1000, "htk") / width) - 1).all()


@pytest.mark.parametrize("chunk_values", [1, 600, 5000, 2**20])
def test_log_mel_of_a_sound_in_a_batch_gives_the_bits_it_gives_alone(
    chunk_values: int, monkeypatch: pytest.MonkeyPatch
):
    fitted = fit(window_samples=200, hop_samples=70, num_mels=15)
    alone = [fitted.apply({"a": SOUNDS[i : i + 1]}, [SOUND]) for i in range(12)]
    assert np.array_equal(np.concatenate(alone), fitted.apply({"a": SOUNDS}, [SOUND]))
    monkeypatch.setattr(audio, "CHUNK_VALUES", chunk_values)  # many chunks of these few sounds
    np.testing.assert_allclose(fitted.apply({"a": SOUNDS}, [SOUND]), np.concatenate(alone), rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "fields", "told"),
    [
        (Column(name="a", dtype="string"), {}, r"needs sounds \[num_samples\], but column 'a' holds text"),
        (Column(name="a", dtype="float32", shape=(4, 4)), {}, r"holds values of shape \[4, 4\]"),
        (Column(name="a", dtype="float32", shape=(399,)), {}, "window_samples=400, but column 'a' holds 399 samples"),
        (SOUND, {"num_mels": 256}, "band 1 of 256 of log_mel holds no frequency: frames of 400 samples"),
    ],
)
def test_log_mel_that_does_not_fit_is_refused_before_any_row_is_read(column: Column, fields: dict[str, Any], told: str):
    with pytest.raises(DataError, match=told):
        fit(column, **fields)


def test_log_mel_of_a_sound_that_is_not_finite_names_the_column():
    broken = SOUNDS[:1].copy()
    broken[0, 500] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="column 'a' holds"):
        fit(num_mels=20).apply({"a": broken}, [SOUND])
