"""A folder of this user's alone for every Ray that raypipe starts: sockets, logs, spilled objects, HAProxy's files.

Ray makes its own folders writable by everybody (mode 0777): in /tmp/ray any local user may swap a socket of a live run
or write into the packages its workers import. Below a folder of mode 0700 nobody else reaches them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raypipe.errors import ClusterError, SpecError, find_known

PREFIX = "raypipe-"
SESSIONS = "ray"
"""What Ray is given as its folder for sessions. It opens that one to everybody, so it lies below ours."""

NAME_BYTES = len(PREFIX) + 8
"""mkdtemp adds eight random characters."""

SHORT_BYTES = 33
"""A longer name leaves no room for sockets: HAProxy takes paths of 97 bytes and needs 64 of them below this folder,
Ray's own may have 107 and need 68."""

SHORT_PARENTS = ("/tmp", "/var/tmp")

LOCK = "in-use"
"""A file in the folder that its process keeps locked: the kernel lets go when the process ends, however it ends."""

NEEDED_BYTES = 1 << 20
"""A disk that does not take so little is full: Ray would die later, without saying why."""

KEEP_S = 24 * 3600.0
"""How long the logs of a Ray that ended badly stay, for whoever wants to know why."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user may enter. It stays for a day when the block fails for another reason than
    the user's file or data, for the logs in it.

    Raises:
        ClusterError: no folder for temporary files can be written.
        SpecError: $RAY_TMPDIR cannot be used.
    """
    usual = parents()
    for parent in dict.fromkeys([*usual, *map(Path, SHORT_PARENTS)]):
        _sweep(parent)
    folder = _make(usual)
    lock = _hold(folder / LOCK)
    try:
        yield folder
    except Exception as error:
        known = find_known(error)
        if known is not None and known.exit_code in (2, 3):  # of the file or the data, of which Ray's logs know nothing
            _remove(folder)
        os.close(lock)
        raise
    except BaseException:  # told to stop: there is nothing to look for
        _remove(folder)
        os.close(lock)
        raise
    _remove(folder)
    os.close(lock)


def parents() -> list[Path]:
    """Where folders for temporary files may be: $RAY_TMPDIR alone, else $TMPDIR and the usual ones that can be used.

    Raises:
        SpecError: $RAY_TMPDIR is set and cannot be used; spilled objects shall not fill another disk without a word.
    """
    wanted = os.environ.get("RAY_TMPDIR")
    if wanted:
        if reason := _unfit(Path(wanted)):
            raise SpecError(f"RAY_TMPDIR={wanted} {reason}", "name another folder, or unset it to use /tmp")
        return [Path(wanted).resolve()]
    usual = [Path(name) for name in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp") if name]
    return list(dict.fromkeys(path.resolve() for path in usual if not _unfit(path)))


def _unfit(parent: Path) -> str:
    """Why Ray's folder cannot be below this one; empty where it can."""
    if not parent.is_absolute():
        return "must be an absolute path"
    try:
        resolved = parent.resolve()
        status = resolved.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        return f"cannot be used: {getattr(error, 'strerror', None) or 'it is a loop of links'}"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if not os.access(resolved, os.W_OK | os.X_OK):
        return "may not be written by this user"
    if status.st_uid not in (0, os.getuid()):
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        return "may be written by others and has no sticky bit: they could put another folder in place of Ray's"
    return ""


def in_use() -> Iterator[Path]:
    """Folders of this user's whose process lives."""
    for parent in dict.fromkeys([*parents(), *map(Path, SHORT_PARENTS)]):
        for folder in _ours(parent):
            if _is_held(folder / LOCK):
                yield folder


def is_private(folder: Path) -> bool:
    """Whether nobody but this user may enter the folder."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _make(usual: list[Path]) -> Path:
    reasons: list[str] = []
    for parent in usual:
        try:
            folder = _new(parent)
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        if len(os.fsencode(folder)) <= SHORT_BYTES:
            return folder
        for short in SHORT_PARENTS:
            if _unfit(Path(short)):
                continue
            with suppress(OSError):
                return _shortened(folder, Path(tempfile.mkdtemp(prefix=PREFIX, dir=short)))
        reasons.append(f"{parent}: too long for the paths of sockets")
        shutil.rmtree(folder, ignore_errors=True)
    raise ClusterError(
        f"Ray needs a folder for its sockets and logs, and none can be made ({'; '.join(reasons) or 'no /tmp'})",
        "free some space, or set RAY_TMPDIR to a folder of yours",
    )


def _new(parent: Path) -> Path:
    """A folder on a disk that takes something; one that is full lets folders be made."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        probe = folder / "probe"
        probe.write_bytes(bytes(NEEDED_BYTES))
        probe.unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _shortened(folder: Path, short: Path) -> Path:
    """A folder with a short name, whose sessions lie in the one with the long name."""
    (folder / SESSIONS).mkdir()
    (short / SESSIONS).symlink_to(folder / SESSIONS)
    return short


def _remove(folder: Path) -> None:
    """The folder, and the one its sessions lie in if that is another."""
    elsewhere = (folder / SESSIONS).resolve().parent
    if elsewhere != folder.resolve() and elsewhere.name.startswith(PREFIX) and is_private(elsewhere):
        shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _hold(path: Path) -> int:
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)  # who sweeps at this moment holds it for an instant
    return handle


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _ours(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.glob(PREFIX + "*")):
        if len(folder.name) == NAME_BYTES and is_private(folder) and (folder / LOCK).exists():
            yield folder


def _sweep(parent: Path) -> None:
    """Remove what dead processes left: spilled objects at once, they may be large; the rest when it is old."""
    for folder in _ours(parent):
        if _is_held(folder / LOCK):
            continue
        with suppress(OSError):  # another raypipe sweeps at this moment
            if time.time() - (folder / LOCK).stat().st_mtime > KEEP_S:
                _remove(folder)
                continue
        for spilled in folder.glob(f"{SESSIONS}/session_*/ray_spilled_objects*"):
            shutil.rmtree(spilled, ignore_errors=True)
