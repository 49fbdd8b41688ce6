"""What a pipeline file points at on this machine: the source files and the user's module. Imports none of it."""

from __future__ import annotations

import ast
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from raypipe.errors import SpecError
from raypipe.spec.load import FieldPath, PipelineFile
from raypipe.spec.model import ImportModel
from raypipe.spec.sources import FileSourceSpec, FolderSource, IdxSource, NumpySource, Source


def check_files(file: PipelineFile) -> None:
    """Refuse a pipeline file that names local files which are not there; remote ones are left to the data stage.

    Raises:
        SpecError: with file, line and field of every missing one.
    """
    problems = [*_missing_sources(file), *_missing_module(file)]
    if problems:
        raise SpecError("\n".join(problems), "relative paths start from data.root, or else from the file's own folder")


def module_file(path: str, code_dir: Path) -> Path | None:
    """The source file of `model.py:build` or `package.module:build`; None when there is none. Imports nothing."""
    source = path.partition(":")[0]
    if source.endswith(".py"):
        file = code_dir / source
        return file if file.is_file() else None
    where: list[str] | None = [str(code_dir), *(entry or os.curdir for entry in sys.path)]
    found = None
    parts = source.replace("/", ".").split(".")
    for depth in range(len(parts)):
        found = PathFinder.find_spec(".".join(parts[: depth + 1]), where)
        if found is None:
            return None
        where = list(found.submodule_search_locations or [])
    return Path(found.origin) if found is not None and found.origin else None


def code_digests(path: str, module: Path) -> dict[str, str]:
    """SHA-256 of a module's file and of those beside it that it imports, and so on: another source is another model.

    Import statements are followed wherever they stand; a module that is only named at run time is not found.

    Args:
        path: `model.py:build` or `package.module:build`.
        module: its file, see `module_file`.
    Returns:
        By path below the folder that the module's name starts from, sorted.
    Raises:
        SpecError: a file cannot be read.
    """
    name = path.partition(":")[0].removesuffix(".py").removeprefix("./").replace("/", ".")
    root = module.parents[name.count(".") + (module.name == "__init__.py")]
    found: dict[str, str] = {}
    todo = [module]
    while todo:
        file = todo.pop()
        relative = file.relative_to(root).as_posix()
        if relative not in found:
            source = _source(file)
            found[relative] = hashlib.sha256(source).hexdigest()
            todo += _imported(source, file, root)
    return dict(sorted(found.items()))


def _imported(source: bytes, file: Path, root: Path) -> Iterator[Path]:
    """Files below the root that a source imports; packages on the way count, for they run too."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # whoever imports it is told so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            start = root
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else root
            names = [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
        else:
            continue
        for name in names:
            here = start
            for part in name.split("."):
                candidates = (here / f"{part}.py", here / part / "__init__.py")
                yield from (candidate for candidate in candidates if candidate.is_file())
                here = here / part


def _source(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecError(
            f"model.path: the model's module imports {file}, which cannot be read: {error.strerror}",
            "make it readable",
        ) from None


def _missing_module(file: PipelineFile) -> Iterator[str]:
    model = file.spec.model
    if isinstance(model, ImportModel) and module_file(model.path, file.code_dir) is None:
        source = model.path.partition(":")[0]
        sought = file.code_dir / source if source.endswith(".py") else f"{source} (a module)"
        yield f"{file.where('model', 'path')}: model.path: {sought} does not exist"


def _missing_sources(file: PipelineFile) -> Iterator[str]:
    data = file.spec.data
    for name, source, _ in data.parts():
        for path, value in _paths(source):
            full = _full_path(data.root or "", value)
            if full is not None and not _is_there(full):
                where = file.where("data", name, *path)
                field = ".".join(str(part) for part in ("data", name, *path))
                yield f"{where}: {field}: {full} does not exist"


def _paths(source: Source) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(source, IdxSource):
        yield ("images",), source.images
        yield ("labels",), source.labels
    elif isinstance(source, FileSourceSpec | NumpySource):
        if isinstance(source.path, str):
            yield ("path",), source.path
        else:
            yield from ((("path", index), value) for index, value in enumerate(source.path or ()))
    if isinstance(source, FolderSource) and source.labels is not None:
        yield ("labels", "path"), source.labels.path
    if isinstance(source, NumpySource):
        yield from ((("arrays", name), value) for name, value in source.arrays.items())


def _full_path(root: str, value: str) -> str | None:
    """Where a path leads on this machine; None when it leads elsewhere."""
    value = value.removeprefix("file://")
    if "://" in value:
        return None
    expanded = os.path.expanduser(value)
    if os.path.isabs(expanded):
        return expanded
    root = root.removeprefix("file://")
    return None if "://" in root else os.path.join(root, expanded)


def _is_there(path: str) -> bool:
    return os.path.exists(path) or (glob.has_magic(path) and next(glob.iglob(path, recursive=True), None) is not None)
