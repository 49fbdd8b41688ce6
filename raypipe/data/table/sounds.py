"""Bytes of recordings -> samples of one length and rate, for files of the training data and requests alike.

WAV is read here; FLAC, OGG and MP3 by libsndfile, through soundfile.  C channels.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raypipe.data.table import resampling, wav

KINDS_NAMED = "WAV, FLAC, OGG or MP3"

NEEDS_SOUNDFILE = "FLAC, OGG and MP3 are read with soundfile: pip install 'raypipe[sound]'"

COMPRESSED = ("FLAC", "OGG", "MP3", "WAV", "WAVEX")
"""As libsndfile names what it may read for us; WAV with samples that are compressed."""

BLOCK_FRAMES = 2**16
"""Samples of each channel that are decoded at a time."""

MAX_SAMPLES = 2**30
"""Of all channels of a compressed recording, 6 hours of one at 48,000 a second: few bytes may stand for any number."""

USUAL_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)

MAX_MIXED = 2
"""Channels whose mean is read without being asked for."""


@dataclass(frozen=True)
class SoundSettings:
    """How a recording becomes numbers.

    Attributes:
        sample_rate: samples a second.
        num_samples: of every row.
        channel: `mean` of all, or the number of one, from 1; None: the mean of two at most.
        align: start, center or end: where a recording of another length lies in its row.
    """

    sample_rate: int
    num_samples: int
    channel: str | int | None = None
    align: str = "start"


class Recording(Protocol):
    """One opened file."""

    @property
    def rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    @property
    def num_frames(self) -> int: ...

    def read(self, first: int, stop: int) -> np.ndarray:
        """float64 [stop - first, C]; raises ValueError where the file ends before its header says."""
        ...


class NeedsSoundfile(ValueError):
    """A recording that only soundfile reads, where that is not installed."""


def read(data: bytes, settings: SoundSettings) -> tuple[np.ndarray, list[str]]:
    """One recording; returns and raises as `opened` and `row_of` do."""
    return row_of(opened(data), settings)


def is_wav(recording: Recording) -> bool:
    """Whether it is read without decoding it."""
    return isinstance(recording, wav.Wav)


def row_of(recording: Recording, settings: SoundSettings) -> tuple[np.ndarray, list[str]]:
    """An opened recording as a row.

    Returns:
        float32 [num_samples], zeros where it has none; and what is worth telling of it, behind the words
        `3 recordings`.
    Raises:
        ValueError: it is damaged, holds no sample, or more channels than may be mixed; says how.
    """
    if not recording.num_frames:
        raise ValueError("holds no samples")
    notes: list[str] = []
    up, down = _ratio(recording.rate, settings.sample_rate, notes)
    _check_channels(recording.num_channels, settings.channel, notes)
    num_after = resampling.num_after(recording.num_frames, up, down)
    cut = _offset(num_after - settings.num_samples, settings.align)
    first, stop = cut, min(cut + settings.num_samples, num_after)
    begin, end = resampling.span(first, stop, up, down)
    there = max(begin, 0), min(end, recording.num_frames)
    samples = np.zeros(end - begin)
    samples[there[0] - begin : there[1] - begin] = _one_channel(recording.read(*there), settings.channel)
    if not np.isfinite(samples).all():
        raise ValueError("holds a sample that is no finite number")
    if np.abs(samples).max(initial=0.0) > 1:
        notes.append("go beyond -1 to 1, and stay as they are: a `level` transform brings all to one level")
    row = np.zeros(settings.num_samples, np.float32)
    place = _offset(settings.num_samples - num_after, settings.align)
    row[place : place + stop - first] = resampling.resampled(samples, first, stop, up, down)
    seconds = f"{settings.num_samples / settings.sample_rate:g} s"
    if num_after > settings.num_samples:
        notes.append(f"are longer than {seconds}, and cut to that (data.source.align: {settings.align})")
    elif num_after < settings.num_samples:
        notes.append(f"are shorter than {seconds}, and filled with zeros (data.source.align: {settings.align})")
    if isinstance(recording, wav.Wav) and not recording.says_length:
        notes.append("do not say how long they are, and are read to their end")
    return row, notes


def opened(data: bytes) -> Recording:
    """A recording whose header is read, by what its bytes say it is.

    Raises:
        NeedsSoundfile: it is no WAV.
        ValueError: it is none.
    """
    if wav.is_wav(data):
        try:
            return wav.opened(data)
        except wav.OtherEncoding:
            if not has_soundfile():
                raise
            return _Compressed(data)
    is_mp3 = data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")
    if not is_mp3 and data[:4] not in (b"fLaC", b"OggS"):
        raise ValueError(f"is no {KINDS_NAMED} recording")
    if not has_soundfile():
        raise NeedsSoundfile(f"is no WAV; {NEEDS_SOUNDFILE}")
    return _Compressed(data)


def has_soundfile() -> bool:
    """Whether FLAC, OGG and MP3 can be read here."""
    try:
        _soundfile()
    except (ImportError, OSError):  # the latter: there is no libsndfile for this machine
        return False
    return True


def _soundfile() -> Any:
    return importlib.import_module("soundfile")


class _Compressed:
    """What libsndfile decodes, from the beginning, a block at a time."""

    def __init__(self, data: bytes) -> None:
        soundfile = _soundfile()
        try:
            file: Any = soundfile.SoundFile(io.BytesIO(data))
        except soundfile.LibsndfileError as error:
            raise ValueError(f"is no {KINDS_NAMED} recording, or damaged: {error.error_string}") from None
        self._file = file
        if file.format not in COMPRESSED:
            raise ValueError(f"is no {KINDS_NAMED} recording")
        if file.format == "OGG" and not _ends_whole(data):
            raise ValueError("ends before its last page")
        self.rate: int = file.samplerate
        self.num_channels: int = file.channels
        self.num_frames: int = file.frames
        if self.num_frames * self.num_channels > MAX_SAMPLES:
            raise ValueError(
                f"has {self.num_frames:,} samples in each of {self.num_channels} channels; {MAX_SAMPLES:,} together "
                "are read: cut it into pieces"
            )

    def read(self, first: int, stop: int) -> np.ndarray:
        """All is decoded, whatever is asked for: a file that is cut short is found wherever that is."""
        kept = np.zeros((stop - first, self.num_channels))
        done = 0
        while len(block := self._block()):
            low, high = max(first - done, 0), min(stop - done, len(block))
            if low < high:
                kept[done + low - first : done + high - first] = block[low:high]
            done += len(block)
            if done > self.num_frames:
                break
        if done != self.num_frames:
            raise ValueError(f"ends after {min(done, self.num_frames)} of its {self.num_frames} samples, or goes on")
        return kept

    def _block(self) -> np.ndarray:
        try:
            return self._file.read(BLOCK_FRAMES, dtype="float64", always_2d=True)
        except _soundfile().LibsndfileError as error:
            raise ValueError(f"is damaged: {error.error_string}") from None


def _ends_whole(data: bytes) -> bool:
    """Whether the last page of an OGG file is there whole, and says that it is the last."""
    place, flags = 0, 0
    while data[place : place + 4] == b"OggS" and place + 27 <= len(data):
        flags = data[place + 5]
        sizes = data[place + 27 : place + 27 + data[place + 26]]
        place += 27 + len(sizes) + sum(sizes)
    return place <= len(data) and bool(flags & 4)


def _ratio(rate: int, wanted: int, notes: list[str]) -> tuple[int, int]:
    try:
        up, down = resampling.ratio(rate, wanted)
    except resampling.NoSmallRatio as error:
        raise ValueError(f"{error}: convert it, or name another data.source.sample_rate") from None
    if rate != wanted:
        named = f"{rate} samples a second" if rate in USUAL_RATES else "an unusual number of samples a second"
        above = f"; above {rate // 2} Hz they hold nothing" if rate in USUAL_RATES and rate < wanted else ""
        notes.append(f"have {named}, resampled to {wanted}{above}")
    return up, down


def _check_channels(num_channels: int, channel: str | int | None, notes: list[str]) -> None:
    if isinstance(channel, int) and channel > num_channels:
        raise ValueError(f"has {num_channels} channels; data.source.channel is {channel}")
    if channel is None and num_channels > MAX_MIXED:
        raise ValueError(
            f"has {num_channels} channels: data.source.channel: mean reads the mean of all, a number one of them"
        )
    if channel is None and num_channels > 1:
        notes.append("have two channels, whose mean is read")


def _one_channel(samples: np.ndarray, channel: str | int | None) -> np.ndarray:
    return samples[:, channel - 1] if isinstance(channel, int) else samples.mean(axis=1)


def _offset(over: int, align: str) -> int:
    """How much of `over` lies before; 0 where there is nothing over."""
    return {"start": 0, "center": max(over, 0) // 2, "end": max(over, 0)}[align]
