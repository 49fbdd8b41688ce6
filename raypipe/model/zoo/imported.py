"""The user's own network: a function that returns an `nn.Module`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from raypipe.errors import ModelError
from raypipe.spec.model import ImportModel


def build(spec: ImportModel, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Call the function; it may name `input_shape` and `num_outputs`, which come from the data."""
    function = getattr(import_module(spec.path), spec.path.partition(":")[2], None)
    if not callable(function):
        raise ModelError(f"model.path: {spec.path} names no function of that module")
    offered = {"input_shape": input_shape, "num_outputs": num_outputs}
    named = inspect.signature(function).parameters
    arguments = {**{k: v for k, v in offered.items() if k in named}, **spec.args}
    try:
        module = function(**arguments)
    except TypeError as error:
        raise ModelError(
            f"model.path: {spec.path} cannot be called with {sorted(arguments)}: {error}",
            "fit model.args to the function's parameters",
        ) from None
    if not isinstance(module, nn.Module):
        raise ModelError(f"model.path: {spec.path} returned {type(module).__name__}; it must return a torch.nn.Module")
    return module


def import_module(path: str, code_dir: Path | None = None) -> ModuleType:
    """Import the module of `model.py:build` or `package.module:build`.

    Args:
        code_dir: put first on sys.path, unless a worker's PYTHONPATH or working_dir has it already.
    Raises:
        ModelError: it cannot be imported; the module's own error is told.
    """
    if code_dir is not None and str(code_dir) not in sys.path:
        sys.path.insert(0, str(code_dir))
    name = module_name(path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model.path: {path}: no module '{error.name}' here",
            "run from the pipeline file's folder, give --code DIR, or install what the module imports",
        ) from None
    except Exception as error:  # the user's module may raise anything while it is imported
        raise ModelError(f"model.path: {path} failed while being imported: {type(error).__name__}: {error}") from error


def module_name(path: str) -> str:
    """`nets/model.py:build` -> `nets.model`."""
    source = path.partition(":")[0]
    return source.removesuffix(".py").removeprefix("./").replace("/", ".") if source.endswith(".py") else source


def source_digest(path: str, code_dir: Path | None = None) -> str:
    """SHA-256 of the module's source file: another source is another model."""
    file: Any = import_module(path, code_dir).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
