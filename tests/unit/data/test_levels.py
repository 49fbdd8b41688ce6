"""The same recordings at other levels: the sounds of examples/06_audio, written as files of 16 bits and read again."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from raypipe.data.formats.sound import decode
from raypipe.data.table.sounds import SoundSettings
from raypipe.data.transforms import FittedTransforms
from raypipe.records import Column
from raypipe.spec.transforms import Transform
from raypipe.testing.fakes import fit_columns
from tests.unit.data.test_sound import wav_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "06_audio" / "make_data.py"
RATE = 8000
AUDIO = Column(name="audio", dtype="float32", shape=(RATE,))
LOG_MEL = {"kind": "log_mel", "columns": ["audio"], "sample_rate": RATE, "window_samples": 256, "hop_samples": 128}
LABELS = np.arange(240) % 4
TRAIN = np.arange(240) // 4 % 2 == 0


def fitted(audio: np.ndarray, *transforms: dict[str, Any]) -> FittedTransforms:
    specs = [TypeAdapter(Transform).validate_python({"columns": ["audio"], **fields}) for fields in transforms]
    return fit_columns(specs, [AUDIO], [{"audio": audio}])


def sounds() -> np.ndarray:
    """[240, RATE] at the levels that the example draws."""
    spec = importlib.util.spec_from_file_location("make_sounds", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    draw, seconds = np.random.default_rng(5), np.arange(RATE) / RATE
    made = []
    for make in [example.hum, example.rising, example.falling, example.rattle] * 60:
        sound = make(draw, seconds) + draw.uniform(0.05, 0.8) * draw.normal(size=RATE)
        made.append(sound * draw.uniform(0.1, 0.9) / np.abs(sound).max())
    return np.array(made)


@cache
def read_at(level: float) -> np.ndarray:
    """The recordings, written at a level and read again."""
    settings = SoundSettings(RATE, RATE)
    return np.array([decode(wav_of(sound[:, None] * level, 1, 16), settings=settings).values for sound in sounds()])


def accuracies(*transforms: dict[str, Any]) -> list[float]:
    """Of test recordings at level 1, 0.1 and 0.01, by a model that learned others at level 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = fitted(read_at(1.0)[TRAIN], *transforms)

    def heard(audio: np.ndarray) -> np.ndarray:
        """Of each band the spread, the means of three thirds, and the trend."""
        power_BMN = made.apply({"audio": audio}, (AUDIO,)).astype(np.float64)
        thirds = [part.mean(axis=2) for part in np.array_split(power_BMN, 3, axis=2)]
        return np.hstack([power_BMN.std(axis=2), *thirds, thirds[2] - thirds[0]])

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    model.fit(heard(read_at(1.0)[TRAIN]), LABELS[TRAIN])
    return [model.score(heard(read_at(level)[~TRAIN]), LABELS[~TRAIN]) for level in (1.0, 0.1, 0.01)]


@pytest.mark.thorough
def test_same_sounds_at_a_tenth_and_a_hundredth_are_told_apart_as_well_once_levelled_and_not_before():
    log_mel = {**LOG_MEL, "num_mels": 24, "floor": 1e-6}
    found = accuracies({"kind": "level"}, log_mel)
    assert min(found) > 0.9 and max(found) - min(found) <= 0.01, found
    found = accuracies(log_mel)
    assert found[0] > 0.9 and found[2] < 0.7, found


def test_level_is_what_it_says_and_silence_stays_silence():
    tone = np.sin(np.arange(RATE) / 5)
    audio = np.stack([tone, 0.01 * tone, 1e-6 * tone, 0 * tone]).astype(np.float32)
    rms = fitted(audio, {"kind": "level"}).apply({"audio": audio}, (AUDIO,))
    assert np.sqrt((rms.astype(float) ** 2).mean(axis=1)) == pytest.approx(
        [0.1, 0.1, 0.1 * 0.01 * math.sqrt(0.5), 0], rel=1e-3
    )
    peak = fitted(audio, {"kind": "level", "measure": "peak", "target_db": 0}).apply({"audio": audio}, (AUDIO,))
    assert np.abs(peak).max(axis=1) == pytest.approx([1, 1, 0.01, 0], rel=1e-3)
    assert np.array_equal(
        peak[0],
        fitted(audio, {"kind": "level", "measure": "peak", "target_db": 0}).apply({"audio": audio[:1]}, (AUDIO,))[0],
    )
