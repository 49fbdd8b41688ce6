"""What paths and globs mean: where they lead, what they match, and which files are never opened."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from raypipe.data.sources import web
from raypipe.errors import DataError
from raypipe.spec.endings import has_ending
from raypipe.spec.sources import FORMAT_NAMES

REFUSED = {
    "Python pickles": (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt"),
    "archives": (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z"),
    "HDF5": (".h5", ".hdf5", ".keras"),
    "Lance": (".lance",),
}
"""Files and folders that are never opened, whatever the format: they can carry code, or hide files that do."""

_ALL_REFUSED = tuple(suffix for suffixes in REFUSED.values() for suffix in suffixes)


def absolute(path: str, root: str) -> str:
    """Where a path leads that starts from `root`, unless it starts elsewhere by itself."""
    path = os.path.expanduser(path)
    if "://" in path or os.path.isabs(path):
        return path
    return (
        f"{root.rstrip('/')}/{path}" if "://" in root else os.path.normpath(os.path.join(os.path.abspath(root), path))
    )


def base_of(root: str) -> str:
    """What uris below the data root begin with."""
    return (root if "://" in root else os.path.abspath(root)).rstrip("/") + "/"


def split_glob(path: str) -> tuple[str, str]:
    """The folder before the first name with `*?[` in it, and the pattern from there on; empty where there is none."""
    names = path.split("/")
    first = next((i for i, name in enumerate(names) if glob.has_magic(name)), len(names))
    pattern = "/".join(names[first:])
    return path.removesuffix(pattern), pattern


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether each folder and name is as the pattern says, where `**` is any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(matches(names[start:], pattern[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:])


def is_data(path: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a path below the folder is of rows; what programs keep for themselves (.ipynb_checkpoints) is not."""
    return has_ending(path, suffixes) and not any(name.startswith((".", "_")) for name in path.split("/"))


def refuse_kind(uri: str) -> None:
    """Raise DataError for a file, or a folder in the way to it, of a kind that is never opened."""
    names = (urlsplit(uri).path if uri.startswith(web.SCHEMES) else uri).lower().split("/")
    refused = [name for name in names if name.endswith(_ALL_REFUSED)]
    if refused:
        what = next(what for what, suffixes in REFUSED.items() if refused[0].endswith(suffixes))
        raise DataError(
            f"data.source: {uri} is not opened: {what} can carry code; the formats are {', '.join(FORMAT_NAMES)}",
            "write the rows as one of these formats, e.g. Parquet, with a program that you trust",
        )
