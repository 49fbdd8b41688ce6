"""WAV files (PCM) in folders; a file is a row, and what is no such file is a bad row.

S samples of one channel.
"""

from __future__ import annotations

import io
import wave
from functools import partial

import numpy as np

from raypipe.data.formats.folders import FolderFormat, RowReader
from raypipe.data.formats.labels import FileRow
from raypipe.spec.sources import WavSource


class Wav(FolderFormat):
    def row_reader(self, source: WavSource, rows: list[FileRow]) -> RowReader:
        """`audio` float32 [sample_rate * duration_s]."""
        del rows
        num_samples = max(1, round(source.sample_rate * source.duration_s))
        reader = partial(decode, sample_rate=source.sample_rate, num_samples=num_samples)
        return RowReader("audio", (num_samples,), "float32", reader)


def decode(data: bytes, *, sample_rate: int, num_samples: int) -> np.ndarray:
    """The beginning of one file, its channels averaged.

    Returns:
        float32 [num_samples] in [-1, 1]; zeros after the end of the file.
    Raises:
        ValueError: another sample rate, or it ends before its header says.
        wave.Error: it is no PCM file.
    """
    with wave.open(io.BytesIO(data)) as file:
        if file.getframerate() != sample_rate:
            raise ValueError(f"has {file.getframerate()} samples a second; data.source.sample_rate is {sample_rate}")
        num_frames, num_channels, width = file.getnframes(), file.getnchannels(), file.getsampwidth()
        wanted = min(num_frames, num_samples)
        raw = file.readframes(num_frames)  # all of it: a file that is cut short is found wherever that is
    if len(raw) < num_frames * num_channels * width:
        raise ValueError(f"ends after {len(raw) // (num_channels * width)} of its {num_frames} samples")
    samples_SC = pcm(raw[: wanted * num_channels * width], width).reshape(wanted, num_channels)
    audio = np.zeros(num_samples, np.float32)
    audio[:wanted] = samples_SC.mean(axis=1)
    return audio


def pcm(raw: bytes, width: int) -> np.ndarray:
    """Samples as numbers.

    Args:
        width: bytes a sample; 1 is unsigned, 2 to 4 are signed, little-endian.
    Returns:
        float64 in [-1, 1).
    """
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 128) / 128
    padded = np.zeros((len(raw) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0] / 2.0**31
