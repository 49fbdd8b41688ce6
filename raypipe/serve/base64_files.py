"""Files in requests: base64 or a data URL in place of a column's numbers. Nothing is ever fetched."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from raypipe.errors import RequestError
from raypipe.serve.schema import shown

DATA_URL = re.compile(r"data:([^;,]{0,80})((?:;[^;,]{0,80}){0,4}),", re.IGNORECASE)
ADDRESS = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,30}:|//)")

BLANKS = str.maketrans("-_", "+/", " \t\r\n")
"""base64 for addresses is read too, and lines as the `base64` command breaks them."""

ANY_BYTES = "application/octet-stream"


@dataclass(frozen=True)
class FileKind:
    """What a column of files holds.

    Attributes:
        name: a word for one of them.
        media_types: that a data URL, or a body that is such a file, may have.
        named: the files that are read, for messages.
        usual: one of the media types.
    """

    name: str
    media_types: tuple[str, ...]
    named: str
    usual: str

    @property
    def hint(self) -> str:
        return f"send the bytes of {self.named} in base64, alone or behind data:{self.usual};base64,"


class HoldsUpTheLoop(Exception):
    """Work that takes too long for the event loop; the same call goes through in a thread."""


def bytes_of(file: str | bytes, where: str, kind: FileKind) -> bytes:
    """The file that a text holds.

    Raises:
        RequestError: 400.
    """
    if isinstance(file, bytes):
        return file
    text = file.strip()
    url = DATA_URL.match(text)
    if url is not None:
        media_type, how = url[1].lower(), url[2].lower()
        if media_type not in kind.media_types or not how.endswith(";base64"):
            known = ", ".join(kind.media_types)
            raise RequestError(
                f"{where}: found a data URL of {shown(media_type + how)}; expected {known} in base64", kind.hint
            )
        text = text[url.end() :]
    elif ADDRESS.match(text):
        raise RequestError(f"{where}: found an address; nothing is fetched from one", kind.hint)
    text = text.translate(BLANKS)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{where}: the text is no {kind.name} in valid base64", kind.hint) from None


def is_on_event_loop() -> bool:
    """Whether who calls is awaited by others."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def unwrapped(value: Any) -> Any:
    """The text in TensorFlow Serving's {"b64": text}; anything else as it is."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str):
        return value["b64"]
    return value
