"""What a pipeline file points at on this machine: the source files and the user's module. Imports none of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from raypipe.errors import SpecError
from raypipe.spec.code import find_module
from raypipe.spec.load import FieldPath, PipelineFile
from raypipe.spec.model import ImportModel
from raypipe.spec.sources import FileSourceSpec, FolderSource, IdxSource, NumpySource, Source


def check_files(file: PipelineFile) -> None:
    """Refuse a pipeline file that names local files which are not there; remote ones are left to the data stage.

    Raises:
        SpecError: with file, line and field of every missing one, and of a `model.path` that is not there, may not be
            named, or has no such function.
    """
    missing, module = list(_missing_sources(file)), list(_module_problem(file))
    if missing or module:
        hint = "relative paths start from data.root, or else from the file's own folder"
        message = "\n".join([*missing, *(error.message for error in module)])
        raise SpecError(message, hint if missing else module[0].hint)


def _module_problem(file: PipelineFile) -> Iterator[SpecError]:
    model = file.spec.model
    if isinstance(model, ImportModel):
        try:
            find_module(model.path, file.code_dir).check_function()
        except SpecError as error:
            yield SpecError(f"{file.where('model', 'path')}: {error.message}", error.hint)


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
