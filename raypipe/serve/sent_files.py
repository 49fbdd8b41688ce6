"""Files that stand in requests for the numbers of a column: pictures and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from raypipe.records import Column, Signature
from raypipe.serve.base64_files import ANY_BYTES
from raypipe.serve.pictures import PICTURE, Pictures, looks_like_picture
from raypipe.serve.recordings import RECORDING, Recordings, looks_like_recording

MEDIA_TYPES = (*PICTURE.media_types, *RECORDING.media_types, ANY_BYTES)
"""That a body may have which is a file by itself."""


class SentFiles:
    """Reads what a column holds, as its files were read in training.

    Attributes:
        pictures, recordings: names of the columns that hold such.
    """

    def __init__(self, signature: Signature) -> None:
        self._pictures, self._recordings = Pictures(signature), Recordings(signature)
        self.pictures, self.recordings = self._pictures.columns, self._recordings.columns

    def read(self, column: Column, files: Sequence[str | bytes], rows: Sequence[int]) -> NDArray[Any]:
        """Values of files [B, *column.shape]; see Pictures.read and Recordings.read."""
        reader = self._recordings if column.name in self.recordings else self._pictures
        return reader.read(column, files, rows)


def only_file_column(signature: Signature, files: frozenset[str]) -> Column | None:
    """The single input of a model of files: what a body of nothing but a file means.

    Args:
        files: the columns that hold some.
    """
    inputs = signature.inputs
    return inputs[0] if len(inputs) == 1 and inputs[0].name in files else None


def looks_like_file(body: bytes | bytearray) -> bool:
    """Whether bytes begin as a picture or a recording does."""
    return looks_like_picture(body) or looks_like_recording(body)
