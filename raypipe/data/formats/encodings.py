"""Text in other encodings than UTF-8: what tells them, and streams of it as UTF-8."""

from __future__ import annotations

import codecs
import re
from typing import Any

import numpy as np

from raypipe.errors import DataError

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file may begin with -> its encoding; the longer ones first where one begins like another."""

ASCII = "ascii"
"""What is recognised where nothing beyond it was seen: read as UTF-8, and what is none later on is another encoding."""

GUESSES = ("cp1252", "cp1250", "cp1251", "mac-roman", "shift_jis")
"""Encodings that a message shows some text in; nothing but a reader tells which of them it is."""

_BETWEEN = re.compile(rb"[\n\r,;|\t\"]")
"""What may stand between cells."""

NEWLINE = b"\n"

SHOWN = 24
"""Characters of a text that a message shows."""

MIN_ZEROS = 0.3
"""UTF-16 of mostly ASCII text has a zero byte at nearly every other place."""


def refuse_other(data: bytes, file: str, is_shown: bool = True, num_right: int | None = None) -> None:
    """Raise DataError where bytes that are no UTF-8 are another encoding, and not UTF-8 with damaged rows.

    So it is where more bytes are no UTF-8 than characters beyond ASCII are it: in other encodings some pairs of bytes
    happen to be such characters.

    Args:
        is_shown: whether a message may show what they hold.
        num_right: characters beyond ASCII of the rows that `data` leaves out; None: it begins the file.
    """
    if data.isascii():
        return
    signs = np.frombuffer(data.decode(errors="surrogateescape").encode("utf-32-le", "surrogatepass"), np.uint32)
    is_wrong = (signs >= 0xDC80) & (signs <= 0xDCFF)
    num_wrong, num_beyond = int(is_wrong.sum()), int((signs > 0x7F).sum())
    if num_wrong > (num_right or 0) + num_beyond - num_wrong:
        raise other_encoding(data, file, is_shown, is_start=num_right is None)


def num_beyond_ascii(data: bytes) -> int:
    """Characters of UTF-8 beyond ASCII, by the bytes that they begin with."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) >= 0xC0))


def other_encoding(data: bytes, file: str, is_shown: bool, is_start: bool) -> DataError:
    """The error of bytes that are no UTF-8; shows what the first of them are in usual encodings.

    Args:
        is_start: whether the file begins with them, so that their line is known.
    """
    place = 0
    try:
        data.decode()
    except UnicodeDecodeError as error:
        place = error.start
    line = f"line {data.count(NEWLINE, 0, place) + 1}" if is_start else "a line"
    before, after = _BETWEEN.split(data[:place][-SHOWN:])[-1], _BETWEEN.split(data[place:][:SHOWN])[0]
    readings = [((before + after).decode(name, errors="replace"), name) for name in GUESSES]
    shown = ", ".join(f"{text!r} in {name}" for text, name in readings if "\ufffd" not in text)
    what = f": {line} holds {shown}" if is_shown else ""
    return DataError(
        f"{file} is no UTF-8 text{what}",
        "save the file as UTF-8, or set data.source.encoding to what it was written in: cp1252 is that of Windows in "
        "western Europe and America (latin-1 is read alike); with utf-8 such rows are bad rows",
    )


def encoding_of(start: bytes) -> str | None:
    """What a file's first bytes tell of its encoding for certain; None: no more than that it may be UTF-8."""
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return name
    for name, offset in (("utf-16-le", 1), ("utf-16-be", 0)):
        places, others = start[offset::2], start[1 - offset :: 2]
        if places.count(0) > MIN_ZEROS * len(places) and not others.count(0):
            return name
    return None


def refuse_wrong(start: bytes, encoding: str, file: str) -> None:
    """Raise DataError where a file is not in the encoding that the spec names, as far as its first bytes tell."""
    name = codecs.lookup(encoding).name
    told = encoding_of(start)
    if told is not None and not name.startswith(told[:6]) and name not in ("utf-8", "utf-8-sig"):
        raise _wrong(file, encoding, f"begins as {told} does", told)
    if name.startswith("utf"):
        return
    if not start.isascii() and _is_whole_utf8(start):
        raise _wrong(file, encoding, "is UTF-8 text with characters beyond ASCII", "utf-8")
    if name == "iso8859-1" and any(0x80 <= byte < 0xA0 for byte in set(start)):
        raise _wrong(file, encoding, "holds bytes 0x80 to 0x9F, which are no text in it", "cp1252")


def _wrong(file: str, encoding: str, why: str, better: str) -> DataError:
    return DataError(f"{file} is not {encoding}: it {why}", f"set data.source.encoding: {better}")


def _is_whole_utf8(start: bytes) -> bool:
    """Whether it is UTF-8, but for a character that the end cuts."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def recoded(stream: Any, encoding: str | None, file: str) -> Any:
    """A binary stream of some encoding as one of UTF-8."""
    name = "utf-8" if encoding is None else codecs.lookup(encoding).name
    return stream if name in ("utf-8", "utf-8-sig", "ascii") else _Recoded(stream, encoding or name, file)


class _Recoded:
    """Reads bytes in one encoding and gives them in UTF-8; raises DataError where they are none of its text."""

    def __init__(self, stream: Any, encoding: str, file: str) -> None:
        self._stream, self._encoding, self._file = stream, encoding, file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._num_read = 0

    def read(self, num_bytes: int) -> bytes:
        """About so many bytes; empty at the end."""
        while True:
            data = self._stream.read(num_bytes)
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                what = f"no {self._encoding} text near byte {self._num_read + error.start}: {error.reason}"
                raise DataError(f"{self._file} is {what}", "correct data.source.encoding, or the file") from None
            self._num_read += len(data)
            if text or not data:
                return text.encode()

    def close(self) -> None:
        self._stream.close()
