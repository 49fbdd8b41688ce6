"""What every refusal must be: in words that one can print, and that tell nothing of the machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.serve.protocols import Route

MOST_MORE_BYTES = 64 * 2**20
"""That a process may be larger for a moment, with what it is sent: four times the largest body."""

LEAKS = re.compile(
    r"/(?:tmp|home|root|usr|work|proc|etc)/|site-packages|Traceback|File \\?\"|\.py\b|0x[0-9a-f]{8,}|<[\w.]+ object|"
    r"numpy\.|torch\.|orjson|pydantic|Errno|assert",
    re.IGNORECASE,
)
"""What tells of the machine or the program behind an answer."""


def readers(app: ModelApp, kind: str = "application/json") -> list[Route]:
    """Paths that predict from such a body."""
    return [route for route in app.routes.all() if kind in route.accepts and route.scope == "predict"]


def checked(answer: Response, told: object) -> int:
    """The status of a refusal, which tells nothing that it should not, in words that one can print."""
    text = bytes(answer.body).decode()
    assert not LEAKS.search(text), (told, text[:300])
    assert all(char.isprintable() or char in "\n" for char in text), (told, text[:300])
    for name, value in answer.headers.items():
        assert "\r" not in value and "\n" not in value, (told, name)
    return answer.status_code


@contextmanager
def watched(*events: str) -> Iterator[list[tuple[str, Any]]]:
    """Notes what this process does meanwhile that is audited."""
    seen: list[tuple[str, Any]] = []
    active = [True]

    def note(event: str, args: Any) -> None:
        if active and event in events:
            seen.append((event, args))

    sys.addaudithook(note)  # stays for the life of the process, so it is switched off
    try:
        yield seen
    finally:
        active.clear()


@contextmanager
def in_little_memory(told: Any) -> Iterator[None]:
    """Fails where the process was larger meanwhile, if only for a moment; what hypothesis keeps does not count."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_bytes()
    yield
    assert peak_bytes() - before < MOST_MORE_BYTES, told


def peak_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
