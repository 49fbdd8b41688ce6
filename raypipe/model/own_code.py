"""Runs the user's own module: from the very bytes that were read and judged, never from what else bears its name.

Python's own search would take a module that is loaded already, a compiled file, or an installed package of the same
name; and the file may change between being read and being run.
"""

from __future__ import annotations

import importlib
import importlib.abc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from raypipe.errors import ModelError, SpecError
from raypipe.spec.code import RESERVED, OwnModule, find_module, is_installed, module_name

_running: _Finder | None = None
"""The module this process runs now."""


def here(code_dir: Path | None) -> Path | None:
    """The caller's folder where this machine has it, else the one that Ray shipped in its place."""
    return code_dir if code_dir is None or code_dir.is_dir() else Path.cwd()


def read_module(path: str, code_dir: Path | None) -> OwnModule:
    """Find, read and judge the module of `model.path`; runs nothing.

    Raises:
        ModelError: it is not there, may not be named, or has no such function of its own.
    """
    try:
        own = find_module(path, here(code_dir))
        own.check_function()
    except SpecError as error:
        raise ModelError(error.message, error.hint) from None
    return own


def run_module(own: OwnModule) -> ModuleType:
    """Import it, unless these very sources are imported already.

    Raises:
        ModelError: another module of its name is in the way, or it cannot be imported; its own error is told.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")  # the one backend whose models are torch modules
    if not own.is_installed:
        _put_first(own)
    try:
        module = importlib.import_module(own.name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model.path: {own.path}: no module '{error.name}' here",
            "run from the pipeline file's folder, give --code DIR, or install what the module imports",
        ) from None
    except (Exception, SystemExit) as error:  # the user's module may raise anything while it is imported
        raise ModelError(
            f"model.path: {own.path} failed while being imported: {type(error).__name__}: {error}"
        ) from error
    if Path(str(module.__file__)).resolve() != (own.root / own.file).resolve():
        raise ModelError(f"model.path: {own.path}: {module.__file__} is loaded in its place", "rename your file")
    return module


def running(path: str) -> ModuleType:
    """The module of `path`, which `run_module` has imported."""
    return sys.modules[module_name(path)]


def _put_first(own: OwnModule) -> None:
    """Python finds these sources, and none of those that ran before, under their names."""
    global _running
    if _running is not None and _running.own == own:
        return
    finder = _Finder(own)
    _forget([*finder.files, *(_running.files if _running is not None else ())], own)
    if _running is not None and _running in sys.meta_path:
        sys.meta_path.remove(_running)
    _running = finder
    sys.meta_path.insert(0, finder)
    if sys.path[:1] != [str(own.root)]:
        sys.path.insert(0, str(own.root))  # for modules that are only named at run time


def source_digests(path: str, code_dir: Path | None) -> dict[str, str]:
    """SHA-256 of the sources that this process runs for `path`, else of those that lie there now."""
    folder = here(code_dir)
    if (
        folder is not None
        and _running is not None
        and (_running.own.path, _running.own.root) == (path, folder.resolve())
    ):
        return _running.own.digests
    return read_module(path, code_dir).digests


class _Finder(importlib.abc.MetaPathFinder):
    """Gives Python the sources of one module, and the folders above them as packages."""

    def __init__(self, own: OwnModule) -> None:
        self.own = own
        self.files: dict[str, str | None] = {}
        """Dotted name -> file below the root; None for a folder that is a package without a file."""
        for file in own.sources:
            parts = file.removesuffix(".py").split("/")
            if parts[-1] == "__init__":
                parts.pop()
            if not parts or parts[0] in RESERVED:
                continue  # Python's own is what the import means
            for depth in range(1, len(parts)):
                self.files.setdefault(".".join(parts[:depth]), None)
            self.files[".".join(parts)] = file

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.files:
            return None
        file = self.files[fullname]
        if file is None:
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self.own.root.joinpath(*fullname.split(".")))]
            return spec
        where = self.own.root / file
        folders = [str(where.parent)] if where.name == "__init__.py" else None
        loader = _Loader(str(where), self.own.sources[file])
        return spec_from_file_location(fullname, where, loader=loader, submodule_search_locations=folders)


class _Loader(importlib.abc.SourceLoader):
    """Runs the bytes it is given. Without `path_stats` Python neither reads nor writes a compiled file."""

    def __init__(self, filename: str, source: bytes) -> None:
        self._filename, self._source = filename, source

    def get_filename(self, fullname: str) -> str:
        return self._filename

    def get_data(self, path: str | bytes | os.PathLike[str]) -> bytes:
        return self._source


def _forget(names: Sequence[str], own: OwnModule) -> None:
    """Every pipeline may have its `model.py`: one from another folder, or what that imports, must not stand in."""
    for name in names:
        known: Any = sys.modules.get(name)
        if known is None:
            continue
        place = getattr(known, "__file__", None) or next(iter(getattr(known, "__path__", ())), None)
        is_ours = isinstance(getattr(known, "__loader__", None), _Loader)
        if not is_ours and (place is None or is_installed(Path(place))):
            raise ModelError(
                f"model.path: {own.path}: an installed module named '{name}' is loaded already ({place})",
                "rename your file or folder",
            )
        del sys.modules[name]
