"""Recordings in requests: a file in base64 or as a data URL in place of a column's numbers, or as a whole body.

They are read by the code that reads the files of the training data, with its settings.  B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from raypipe.data.table import resampling, sounds
from raypipe.data.table.sounds import SoundSettings
from raypipe.errors import RequestError
from raypipe.records import Column, Signature
from raypipe.serve.base64_files import FileKind, HoldsUpTheLoop, bytes_of, is_on_event_loop
from raypipe.spec.sources import SoundSource

MAX_SAMPLES = 2**25
"""Of all channels of all recordings in a request together, twelve minutes of one at 48,000 a second; and of what the
model reads of them, however short they are."""

RESAMPLED = 8
"""As many samples one counts that is made of others at another rate: a second of sound takes some 9 ms."""

MAX_RATES = resampling.MAX_KEPT
"""Other than the model's, of the recordings in a request: each new one takes as long as a second of sound."""

INLINE_SAMPLES = 2**15
"""More than this are not read on the event loop, nor is anything that is compressed or resampled."""

SOUND_TYPES = (
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/vnd.wave",
    "audio/flac",
    "audio/x-flac",
    "audio/ogg",
    "audio/mpeg",
    "audio/mp3",
)

RECORDING = FileKind("recording", SOUND_TYPES, f"a {sounds.KINDS_NAMED} file", "audio/wav")


class Recordings:
    """Reads recordings for the columns of a model that hold some.

    Attributes:
        columns: names of these.
    """

    def __init__(self, signature: Signature) -> None:
        settings = {column.name: settings_of(column, signature) for column in signature.inputs}
        self._settings = {name: found for name, found in settings.items() if found is not None}
        self.columns = frozenset(self._settings)

    def read(self, column: Column, files: Sequence[str | bytes], rows: Sequence[int]) -> NDArray[np.float32]:
        """Samples of recordings; arguments as of Pictures.read.

        Returns:
            [B, *column.shape].
        Raises:
            RequestError: 400 naming row and field; 413: too many samples; 415: this server cannot read such files.
            HoldsUpTheLoop: it was called on an event loop, and there is much to do.
        """
        settings = self._settings[column.name]
        if len(files) * settings.num_samples > MAX_SAMPLES:
            raise _too_many(f"field '{column.name}'", f"of {len(files)} recordings, {settings.num_samples} of each,")
        read = np.empty((len(files), *column.shape), np.float32)
        work = _Work(settings, is_on_event_loop())
        for i, (file, row) in enumerate(zip(files, rows, strict=True)):
            where = f"row {row}, field '{column.name}'"
            data = bytes_of(file, where, RECORDING)
            if work.is_inline and not data.startswith(b"RIFF"):
                raise HoldsUpTheLoop
            try:
                recording = sounds.opened(data)
                work.add(recording, where)
                read[i], _ = sounds.row_of(recording, settings)
            except sounds.NeedsSoundfile as error:
                raise RequestError(f"{where}: the recording {error}", "send a WAV file", status=415) from None
            except ValueError as error:
                why = str(error).partition("data.source")[0].rstrip(" :;")  # the client has no pipeline file
                raise RequestError(f"{where}: the recording {why}", RECORDING.hint) from None
        return read


@dataclass
class _Work:
    """What it takes to read the recordings of a request, told before each is read.

    Attributes:
        is_inline: it is done on an event loop.
        num_samples: of those up to now, by what they take.
        other_rates: of those up to now, where the model's is another.
    """

    settings: SoundSettings
    is_inline: bool
    num_samples: int = 0
    other_rates: set[int] = field(default_factory=set)

    def add(self, recording: sounds.Recording, where: str) -> None:
        """One more.

        Raises:
            RequestError, HoldsUpTheLoop: it is too much; see Recordings.read.
        """
        is_resampled = recording.rate != self.settings.sample_rate
        to_make = self.settings.num_samples * (RESAMPLED if is_resampled else 1)
        self.num_samples += max(recording.num_frames * recording.num_channels, to_make)
        if self.num_samples > MAX_SAMPLES:
            raise _too_many(where, "of the recordings up to here")
        if is_resampled:
            self.other_rates.add(recording.rate)
        if len(self.other_rates) > MAX_RATES:
            raise _too_many_rates(where)
        is_quick = sounds.is_wav(recording) and not is_resampled
        if self.is_inline and (not is_quick or self.num_samples > INLINE_SAMPLES):
            raise HoldsUpTheLoop


def settings_of(column: Column, signature: Signature) -> SoundSettings | None:
    """How a recording becomes a value of the column; None where the column holds no recordings of files."""
    reading = signature.reading
    if column.dtype != "float32" or len(column.shape) != 1 or reading is None or reading.format != "sound":
        return None
    fields: dict[str, Any] = {**reading.settings, "format": "sound", "path": "."}
    try:
        source = SoundSource.model_validate(fields)
    except ValidationError:
        return None
    settings = SoundSettings(source.sample_rate, source.num_samples, source.channel, source.align)
    return settings if column.shape == (settings.num_samples,) else None


def looks_like_recording(body: bytes | bytearray) -> bool:
    """Whether bytes begin as a recording does."""
    begins = body.startswith((b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"))
    return begins or (body.startswith((b"RIFF", b"RF64")) and body[8:12] == b"WAVE")


def _too_many(where: str, what: str) -> RequestError:
    return RequestError(
        f"{where}: the samples {what} are more than {MAX_SAMPLES}, the most of one request",
        f"send fewer or shorter recordings, at the model's rate: a sample at another counts as {RESAMPLED}",
        status=413,
    )


def _too_many_rates(where: str) -> RequestError:
    return RequestError(
        f"{where}: the recordings up to here have more than {MAX_RATES} sample rates that the model's is not",
        "send recordings of one rate per request, best at the rate of the model",
        status=413,
    )
