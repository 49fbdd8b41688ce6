"""Sounds to what is heard in them.

B rows, S samples, N frames a row, W samples a frame, F frequencies, M mel bands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raypipe.data.transforms.base import Fitted, State, TransformKind
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import LevelTransform, LogMelTransform

CHUNK_VALUES = 2**20
"""Samples in frames that are transformed at a time."""

SLANEY_HZ_A_MEL, SLANEY_LOG_HZ = 200 / 3, 1000.0
SLANEY_LOG_STEP = math.log(6.4) / 27
"""Linear up to 1 kHz, then 27 steps to 6.4 kHz.  Source: Slaney 1998, "Auditory Toolbox", Technical Report 1998-010."""


class LogMel(TransformKind):
    """Power spectrum of each frame -> triangular mel bands -> logarithm.

    Computed in float64, a row at a time where a library's order of adding may depend on how much it is given: the rows
    beside it do not change a bit.
    """

    @staticmethod
    def check(spec: LogMelTransform, column: Column) -> Column:
        num_samples = need_sound(spec, column)
        if num_samples < spec.window_samples:
            raise DataError(
                f"data.transforms: log_mel takes frames of window_samples={spec.window_samples}, but column "
                f"'{column.name}' holds {num_samples} samples",
                f"set window_samples to {num_samples} or less",
            )
        empty = np.flatnonzero(~bands(spec).any(axis=0))
        if len(empty):
            raise DataError(
                f"data.transforms: band {empty[0] + 1} of {spec.num_mels} of log_mel holds no frequency: "
                f"frames of {spec.window_samples} samples tell frequencies {spec.sample_rate / spec.window_samples:g} "
                "Hz apart",
                "set fewer num_mels or more window_samples",
            )
        num_frames = 1 + (num_samples - spec.window_samples) // spec.hop_samples
        return column.model_copy(update={"shape": (spec.num_mels, num_frames)})

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._spec = LogMelTransform.model_validate({**state, "columns": [name]})
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._spec.window_samples) / self._spec.window_samples)
        self._bands_FM = bands(self._spec)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """[B, M, N]."""
        spec = self._spec
        frames_BNW = np.lib.stride_tricks.sliding_window_view(values, spec.window_samples, axis=1)
        frames_BNW = frames_BNW[:, :: spec.hop_samples]
        num_rows, num_frames, _ = frames_BNW.shape
        done_BMN = np.empty((num_rows, spec.num_mels, num_frames), values.dtype)
        frames_at_once = max(1, CHUNK_VALUES // spec.window_samples)
        rows_at_once = max(1, frames_at_once // num_frames)
        for row in range(0, num_rows, rows_at_once):
            for frame in range(0, num_frames, frames_at_once):
                here = slice(row, row + rows_at_once), slice(frame, frame + frames_at_once)
                done_BMN[here[0], :, here[1]] = self._log_power(frames_BNW[here]).swapaxes(1, 2)
        return done_BMN

    def _log_power(self, frames_BNW: np.ndarray) -> np.ndarray:
        """float64 [B, N, M]."""
        spectrum_BNF = np.fft.rfft(frames_BNW * self._window, axis=-1)
        power_BNF = spectrum_BNF.real**2 + spectrum_BNF.imag**2
        power_BNM = np.maximum(np.matmul(power_BNF, self._bands_FM), self._spec.floor)  # one product a row
        return 10.0 * np.log10(power_BNM) if self._spec.output == "db" else np.log(power_BNM)


class Level(TransformKind):
    """x * target / level, by row; computed in float64."""

    @staticmethod
    def check(spec: LevelTransform, column: Column) -> Column:
        need_sound(spec, column)
        return column

    def apply(self, values: np.ndarray) -> np.ndarray:
        """[B, S]."""
        floor, target = (10.0 ** (self.state[name] / 20) for name in ("floor_db", "target_db"))
        done_BS = np.empty_like(values)
        for row, sound_S in enumerate(values):
            samples_S = sound_S.astype(np.float64)
            peak = float(np.abs(samples_S).max())
            level = peak
            if self.state["measure"] == "rms" and peak > 0:
                unit_S = samples_S / peak  # its squares are within float64 whatever the samples are
                level = peak * math.sqrt(float(np.add.reduce(unit_S * unit_S)) / len(unit_S))
            done_BS[row] = samples_S * (target / max(level, floor))
        return done_BS


def need_sound(spec: Any, column: Column) -> int:
    """How many samples a sound of the column has.

    Raises:
        DataError: the column holds no sounds.
    """
    if column.dtype == "string" or len(column.shape) != 1 or -1 in column.shape:
        what = "text" if column.dtype == "string" else f"values of shape {list(column.shape)}"
        raise DataError(
            f"data.transforms: {spec.kind} needs sounds [num_samples], but column '{column.name}' holds {what} at this "
            "place",
            "name the column of the sounds, such as `audio` of format: sound",
        )
    return column.shape[0]


def bands(spec: LogMelTransform) -> np.ndarray:
    """How much of each frequency each band takes, float64 [F, M]: triangles whose corners are equally far apart in mel.

    htk: every triangle is 1 high; slaney: every one has area 1 over Hz.
    """
    high_hz = spec.sample_rate / 2 if spec.high_hz is None else spec.high_hz
    ends = to_mel(np.array([spec.low_hz, high_hz]), spec.mel_scale)
    corners = to_hz(np.linspace(ends[0], ends[1], spec.num_mels + 2), spec.mel_scale)
    low_M, peak_M, high_M = corners[:-2], corners[1:-1], corners[2:]
    hz_F1 = np.fft.rfftfreq(spec.window_samples, 1 / spec.sample_rate)[:, None]
    rising, falling = (hz_F1 - low_M) / (peak_M - low_M), (high_M - hz_F1) / (high_M - peak_M)
    weight_FM = np.maximum(0.0, np.minimum(rising, falling))
    return weight_FM * (2 / (high_M - low_M)) if spec.mel_scale == "slaney" else weight_FM


def to_mel(hz: np.ndarray, mel_scale: str) -> np.ndarray:
    """Pitch as it is heard.  Source of htk: Young et al. 2006, "The HTK Book" 3.4, eq. 5.13."""
    if mel_scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = SLANEY_LOG_HZ / SLANEY_HZ_A_MEL + np.log(np.maximum(hz, SLANEY_LOG_HZ) / SLANEY_LOG_HZ) / SLANEY_LOG_STEP
    return np.where(hz < SLANEY_LOG_HZ, hz / SLANEY_HZ_A_MEL, above)


def to_hz(mel: np.ndarray, mel_scale: str) -> np.ndarray:
    """The inverse of `to_mel`."""
    if mel_scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    log_mel = SLANEY_LOG_HZ / SLANEY_HZ_A_MEL
    above = SLANEY_LOG_HZ * np.exp((np.maximum(mel, log_mel) - log_mel) * SLANEY_LOG_STEP)
    return np.where(mel < log_mel, mel * SLANEY_HZ_A_MEL, above)
