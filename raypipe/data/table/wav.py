"""WAV files -> samples: whole numbers of 8, 16, 24 and 32 bits, floats of 32 and 64, in every header that holds them.

C channels.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE

WIDTHS = {PCM: (1, 2, 3, 4), FLOAT: (4, 8)}
"""Encoding -> bytes a sample."""

UNKNOWN_BYTES = 0xFFFFFFFF
"""Size that a writer gives which cannot go back to the header."""


class OtherEncoding(ValueError):
    """A WAV file whose samples are neither whole numbers nor floats."""


@dataclass(frozen=True)
class Wav:
    """One file, nothing of it decoded.

    Attributes:
        rate: samples a second of each channel.
        samples: the bytes of `num_frames` samples of each channel, one frame after another.
    """

    rate: int
    num_channels: int
    num_frames: int
    encoding: int
    width: int
    samples: memoryview
    says_length: bool = True

    def read(self, first: int, stop: int) -> np.ndarray:
        """float64 [stop - first, C]; whole numbers in [-1, 1), floats as they are."""
        frame_bytes = self.width * self.num_channels
        raw = self.samples[first * frame_bytes : stop * frame_bytes]
        values = np.frombuffer(raw, f"<f{self.width}") if self.encoding == FLOAT else pcm(raw, self.width)
        return values.astype(np.float64, copy=False).reshape(stop - first, self.num_channels)


def is_wav(data: bytes) -> bool:
    return data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"


def opened(data: bytes) -> Wav:
    """A WAV file by its header.

    Raises:
        OtherEncoding: it is compressed.
        ValueError: its header contradicts itself or the file; says how.
    """
    form, whole, num_long = None, memoryview(data), None
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        place += 8
        if name == b"ds64" and size >= 16:  # RF64: sizes of more than 32 bits
            num_long = struct.unpack_from("<Q", data, place + 8)[0]
        elif name == b"fmt ":
            form = _Form.read(data[place : place + size])
        elif name == b"data":
            if form is None:
                raise ValueError("has samples before its header says how they are written")
            says_length = size != UNKNOWN_BYTES or num_long is not None
            num_bytes = num_long if num_long is not None and size == UNKNOWN_BYTES else size
            return form.of(whole[place:], num_bytes if says_length else None)
        place += size + size % 2
    raise ValueError("ends before any sample: its header is damaged")


@dataclass(frozen=True)
class _Form:
    """What the header says of the samples."""

    encoding: int
    num_channels: int
    rate: int
    width: int

    @classmethod
    def read(cls, data: bytes) -> _Form:
        if len(data) < 16:
            raise ValueError("has a header that is cut off")
        encoding, channels, rate, bytes_a_second, frame_bytes, bits = struct.unpack_from("<HHIIHH", data)
        if encoding == EXTENSIBLE:
            if len(data) < 40:
                raise ValueError("has a header that is cut off")
            encoding = struct.unpack_from("<H", data, 24)[0]
        if encoding not in WIDTHS:
            raise OtherEncoding(f"has encoding {encoding:#x}; PCM and floats are read: convert it, e.g. with ffmpeg")
        width = -(-bits // 8)
        if not channels or not rate or width not in WIDTHS[encoding]:
            raise ValueError(f"has a false header: {channels} channels of {rate} samples a second, {bits} bits each")
        if frame_bytes != channels * width or bytes_a_second not in (0, rate * frame_bytes):
            raise ValueError(
                f"has a false header: {channels} channels of {rate} samples a second with {bits} bits each are not "
                f"{frame_bytes} bytes a sample and {bytes_a_second} a second"
            )
        return cls(encoding, channels, rate, width)

    def of(self, samples: memoryview, num_bytes: int | None) -> Wav:
        """The file whose samples begin here.

        Args:
            num_bytes: as the header says; None reads to the end.
        """
        frame_bytes = self.width * self.num_channels
        there = len(samples) // frame_bytes
        num_frames = there if num_bytes is None else num_bytes // frame_bytes
        if num_frames > there:
            raise ValueError(f"ends after {there} of its {num_frames} samples")
        return Wav(self.rate, self.num_channels, num_frames, self.encoding, self.width, samples, num_bytes is not None)


def pcm(raw: bytes | memoryview, width: int) -> np.ndarray:
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
