"""Which Rays this user's raypipe started on this machine: what `raypipe status` and `stop` look at.

Ray's own `auto` finds any cluster on the machine, somebody else's too; nobody wants to stop that one. A note of each
lies in the user's home, and where that cannot be written, in the Ray's own folder.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raypipe.errors import SpecError
from raypipe.runtime import private
from raypipe.runtime.process import ProcessId

NOTE = "ray.json"
"""Name of the note in a Ray's own folder."""

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def announced(address: str, folder: Path | None = None) -> Iterator[None]:
    """Let other commands of this user find a Ray started here, while the block runs.

    Args:
        folder: the Ray's own, for the note where the home cannot be written.
    """
    own = ProcessId.own()
    token = os.environ.get("RAY_AUTH_TOKEN_PATH")
    note = json.dumps({"address": address, "token": token, "process": own.document()})
    state = _clusters_folder()
    files = [state / f"{own.host}-{own.pid}.json"] if state is not None else []
    files += [folder / NOTE] if folder is not None else []
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(note, encoding="utf-8")
        except OSError:  # a read-only home: the next place will do
            continue
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()
        return
    yield  # nobody finds it, and that is all


def addresses() -> list[str]:
    """Addresses of the Rays whose processes still live, oldest process first."""
    return [str(note["address"]) for note in _notes()]


def token_of(address: str) -> str | None:
    """Path of the token that a Ray of this user's is entered with; None where it is the user's usual one."""
    return next((note["token"] for note in _notes() if note["address"] == address and note.get("token")), None)


@contextmanager
def ensure_token(folder: Path) -> Iterator[None]:
    """A token for clusters of this user, readable by nobody else; the one Ray makes is readable by everybody.

    Args:
        folder: the Ray's own, where the token lies while the block runs if the home cannot be written.
    """
    home = _home()
    if any(os.environ.get(name) for name in TOKEN_VARIABLES) or (home is not None and _write_token(home / ".ray")):
        yield
        return
    _write_token(folder)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "auth_token")
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN_PATH"]


def _write_token(folder: Path) -> bool:
    """Whether there is one now that this user can read."""
    path = folder / "auth_token"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):  # there is one, perhaps since a moment ago
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
        if path.stat().st_mode & 0o077:  # Ray's own command makes it so, and every user here may reach the ports
            path.chmod(0o600)
        return path.stat().st_size > 0 and os.access(path, os.R_OK)
    except OSError:  # a home that cannot be written, or is not there
        return False


def _notes() -> Iterator[dict[str, Any]]:
    state = _clusters_folder()
    here: list[tuple[int, dict[str, Any]]] = []
    for file in state.glob("*.json") if state is not None else []:
        note = next(_read(file), {})
        process = _process_of(note)
        if process is not None and process.lives:
            here.append((process.started, note))
        elif process is None or not process.is_elsewhere:  # a home that machines share has notes of all
            with suppress(OSError):
                file.unlink()
    yield from (note for _, note in sorted(here, key=lambda each: each[0]))
    with suppress(SpecError):  # RAY_TMPDIR cannot be used: then no Ray was started in it
        for folder in private.in_use():
            yield from _read(folder / NOTE)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    with suppress(OSError, ValueError):  # gone meanwhile, or half written
        note = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(note, dict) and "address" in note:
            yield note


def state_folder() -> Path | None:
    """Where raypipe notes what runs on this machine; None where this user has no home."""
    state = os.environ.get("XDG_STATE_HOME")
    home = _home()
    if state:
        return Path(state) / "raypipe"
    return None if home is None else home / ".local" / "state" / "raypipe"


def _clusters_folder() -> Path | None:
    state = state_folder()
    return None if state is None else state / "clusters"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and a user id that has no entry, as containers have
        return None


def _process_of(note: dict[str, Any]) -> ProcessId | None:
    try:
        return ProcessId.parse(note["process"])
    except (KeyError, TypeError, ValueError):  # half written, or an older raypipe's
        return None
