"""Which Rays this user's raypipe started on this machine: what `raypipe status` and `stop` look at.

Ray's own `auto` finds any cluster on the machine, somebody else's too; nobody wants to stop that one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def announced(address: str) -> Iterator[None]:
    """Let other commands of this user find a Ray started here, while the block runs."""
    file = _folder() / f"{os.getpid()}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"address": address}), encoding="utf-8")
    except OSError:  # a read-only home: nobody finds it, and that is all
        yield
        return
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def addresses() -> list[str]:
    """Addresses of the Rays whose processes still live, oldest process first."""
    found: list[str] = []
    for file in sorted(_folder().glob("*.json")):
        if not _lives(file.stem):
            file.unlink(missing_ok=True)
            continue
        with suppress(OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or half written
            found.append(str(json.loads(file.read_text(encoding="utf-8"))["address"]))
    return found


def _folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "raypipe" / "clusters"


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # it lives, as another user
        return True
    except (OSError, ValueError):  # no such process, or no number
        return False
    return True
