"""What a pipeline file points at on this machine: the source files and the user's module. Imports none of it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from raypipe.errors import SpecError
from raypipe.spec.code import find_module
from raypipe.spec.endings import in_either_case
from raypipe.spec.labels import TableLabel
from raypipe.spec.load import FieldPath, PipelineFile
from raypipe.spec.model import SAFETENSORS
from raypipe.spec.sources import FileSourceSpec, FolderSource, IdxSource, NumpySource, Source
from raypipe.spec.text_transforms import PretrainedTokensTransform


def check_files(file: PipelineFile) -> None:
    """Refuse a pipeline file that names local files which are not there; remote ones are left to the data stage.

    Raises:
        SpecError: with file, line and field of every missing one, weights to start from too, and of a `model.path` or
            `train.step` that is not there, may not be named, or has no such function.
    """
    missing, module = [*_missing_sources(file), *_missing_weights(file)], list(_module_problem(file))
    if missing or module:
        hint = "relative paths start from data.root, or else from the file's own folder"
        message = "\n".join([*missing, *(error.message for error in module)])
        raise SpecError(message, hint if missing else module[0].hint)


def _module_problem(file: PipelineFile) -> Iterator[SpecError]:
    for (section, field), path in file.spec.own_modules.items():
        try:
            find_module(path, file.code_dir).check_function()
        except SpecError as error:
            message = error.message.replace("model.path", f"{section}.{field}")
            yield SpecError(f"{file.where(section, field)}: {message}", error.hint)


def _missing_sources(file: PipelineFile) -> Iterator[str]:
    data = file.spec.data
    for name, source, _ in data.parts():
        for path, value in _paths(source):
            full = _full_path(data.root or "", value)
            if full is not None and not _is_there(full):
                where = file.where("data", name, *path)
                field = ".".join(str(part) for part in ("data", name, *path))
                yield f"{where}: {field}: {full} does not exist"
    for number, transform in enumerate(data.transforms):
        full = _full_path(data.root or "", transform.file) if isinstance(transform, PretrainedTokensTransform) else None
        if full is not None and not _is_there(full):
            where = file.where("data", "transforms", number, "file")
            yield f"{where}: data.transforms.{number}.file: {full} does not exist"


def _missing_weights(file: PipelineFile) -> Iterator[str]:
    source = file.spec.model.init_from
    if source is not None and source.endswith(SAFETENSORS):
        full = _full_path(str(file.code_dir), source)
        if full is not None and not os.path.isfile(full):
            yield f"{file.where('model', 'init_from')}: model.init_from: {full} does not exist"


def _paths(source: Source) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(source, IdxSource):
        yield ("images",), source.images
        yield ("labels",), source.labels
    elif isinstance(source, FileSourceSpec | NumpySource):
        if isinstance(source.path, str):
            yield ("path",), source.path
        else:
            yield from ((("path", index), value) for index, value in enumerate(source.path or ()))
    if isinstance(source, FolderSource) and isinstance(source.label, TableLabel):
        yield ("label", "path"), source.label.path
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
    return os.path.exists(path) or (
        glob.has_magic(path) and next(glob.iglob(in_either_case(path), recursive=True), None) is not None
    )
