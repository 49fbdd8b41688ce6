"""Recordings in folders; a file is a row, and what is no recording is a bad row."""

from __future__ import annotations

from functools import partial

from raypipe.data.formats.folders import Decoded, FolderFormat, RowReader
from raypipe.data.formats.labels import FileRow
from raypipe.data.table import sounds
from raypipe.data.table.sounds import SoundSettings
from raypipe.errors import DataError
from raypipe.spec.sources import SoundSource


class Sound(FolderFormat):
    def row_reader(self, source: SoundSource, rows: list[FileRow]) -> RowReader:
        """`audio` float32 [sample_rate * duration_s].

        Raises:
            DataError: soundfile is missing, and a file needs it by its name.
        """
        _need_soundfile(rows)
        settings = SoundSettings(source.sample_rate, source.num_samples, source.channel, source.align)
        return RowReader("audio", (source.num_samples,), "float32", partial(decode, settings=settings), "recordings")


def decode(data: bytes, *, settings: SoundSettings) -> Decoded:
    """One recording; raises as sounds.read does."""
    return Decoded(*sounds.read(data, settings))


def _need_soundfile(rows: list[FileRow]) -> None:
    other = next((row for row in rows if row.problem is None and not row.name.lower().endswith(".wav")), None)
    if other is not None and not sounds.has_soundfile():
        raise DataError(
            f"data.source.format: sound reads {other.name} with soundfile, which is not installed",
            "pip install 'raypipe[sound]'; or keep WAV files alone: data.source.path: '.../**/*.wav'",
        )
