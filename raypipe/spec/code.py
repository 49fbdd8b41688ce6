"""The user's own module that `model.path` names: found, read and judged; none of it is imported here.

A path may come from the store, where others may write, so nothing runs that the caller did not point at: a file below
the caller's folder, or an installed module that the caller allowed by name.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath

from raypipe.errors import SpecError
from raypipe.spec.functions import RESERVED, Functions

ALLOW_MODULES = "RAYPIPE_ALLOW_MODULES"
"""Variable with the installed modules that `model.path` may name, joined by commas; `--allow-module` adds to it."""

INSTALLED = ("site-packages", "dist-packages")

MAX_SOURCE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class OwnModule:
    """One module and the files that run with it, as they were when they were read.

    Attributes:
        path: as written, `model.py:build` or `package.module:build`.
        name: of the module, dotted.
        root: folder that the name starts from, without links.
        file: of the module, below `root`.
        sources: by path below `root`, sorted: the module, the packages it lies in, and, unless it is installed, what
            these import from below `root`, and so on. Import statements are followed wherever they stand; a module
            that is only named at run time is not found.
        is_installed: it lies outside the caller's folder, and is allowed by name.
    """

    path: str
    name: str
    root: Path
    file: str
    sources: Mapping[str, bytes]
    is_installed: bool = False

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every source: another source is another model."""
        return {name: hashlib.sha256(source).hexdigest() for name, source in self.sources.items()}

    @property
    def needed(self) -> set[str]:
        """Files that run whatever their source says: the module and the packages it lies in."""
        packages = [(folder / "__init__.py").as_posix() for folder in PurePosixPath(self.file).parents[:-1]]
        return {self.file, *(file for file in packages if file in self.sources)}

    def check_function(self) -> None:
        """Find the function in the module's syntax tree.

        Raises:
            SpecError: the source is no Python, has no such function, or has it from elsewhere.
        """
        if not self.is_installed:  # whoever allows an installed module allows what it offers
            Functions(self.sources, allowed_modules()).check(self.path, self.file)


def allowed_modules() -> frozenset[str]:
    """Installed modules that the caller allows by name."""
    return frozenset(filter(None, (name.strip() for name in os.environ.get(ALLOW_MODULES, "").split(","))))


def allow_modules(names: list[str]) -> None:
    """Allow installed modules in this process, and in those that are started with its variables."""
    os.environ[ALLOW_MODULES] = ",".join(sorted({*allowed_modules(), *names}))


def find_module(path: str, code_dir: Path | None) -> OwnModule:
    """Find and read the module of `model.py:build` or `package.module:build`.

    Args:
        code_dir: the caller's folder; without one only allowed modules are found.
    Raises:
        SpecError: it is not there, lies outside the folder, is not allowed, or cannot be read.
    """
    name = module_name(path)
    top = name.partition(".")[0]
    is_allowed = name in allowed_modules()
    file = _below(path, name, code_dir) if code_dir is not None else None
    if top in RESERVED and not is_allowed:
        raise SpecError(
            f"model.path: {path}: '{top}' is a module of Python's standard library or of raypipe, which a model may "
            "not name",
            "rename your file, so that it does not stand in for Python's own" if file else "name a file of your folder",
        )
    if code_dir is not None and file is not None:
        root = code_dir.resolve()
        real = file.resolve()
        if not real.is_relative_to(root):
            raise SpecError(
                f"model.path: {path}: {file} is a link that leads out of {code_dir}",
                "put the file itself into the folder",
            )
        if not is_installed(real):
            return OwnModule(path, name, root, file.relative_to(code_dir).as_posix(), _sources(file, name, code_dir))
        if not is_allowed:
            raise _not_allowed(path, name)
    found = _installed_file(name)
    by_chance = code_dir is None and found is not None and not is_installed(found.resolve())
    if found is None or (by_chance and not is_allowed):  # a file of the folder where the process happens to run
        raise _missing(path, code_dir)
    if not is_allowed:
        raise _not_allowed(path, name)
    if found.suffix != ".py":
        raise SpecError(f"model.path: {path}: {found} is no Python source, so nothing can say whether it changed")
    root = found.parents[name.count(".") + (found.name == "__init__.py")]
    sources = {f.relative_to(root).as_posix(): _source(f) for f in [found, *_packages(found, root)]}
    return OwnModule(path, name, root, found.relative_to(root).as_posix(), dict(sorted(sources.items())), True)


def module_name(path: str) -> str:
    """`nets/model.py:build` -> `nets.model`."""
    source = path.partition(":")[0]
    return source.removesuffix(".py").removeprefix("./").replace("/", ".") if source.endswith(".py") else source


def is_installed(file: Path) -> bool:
    """Whether a file belongs to an installed package or to Python itself."""
    python = Path(sysconfig.get_path("stdlib")).resolve()
    return any(part in INSTALLED for part in file.parts) or file.is_relative_to(python)


def _not_allowed(path: str, name: str) -> SpecError:
    return SpecError(
        f"model.path: {path}: '{name}' is an installed module, not a file of your folder; it must be allowed by name",
        f"give --allow-module {name} if a model may run any function of it, or call it from a file of your folder",
    )


def _missing(path: str, code_dir: Path | None) -> SpecError:
    source = path.partition(":")[0]
    if code_dir is None:
        return SpecError(
            f"model.path: {path} is a model of somebody's own code, and its folder is not given",
            "give --code DIR, the folder that holds its module",
        )
    sought = code_dir / source if source.endswith(".py") else f"{source} (a module of {code_dir})"
    return SpecError(
        f"model.path: {sought} does not exist",
        "run from the pipeline file's folder, or give --code DIR, which holds it",
    )


def _below(path: str, name: str, code_dir: Path) -> Path | None:
    """The module's file in the caller's folder; a name that no file can have names none (`Path.is_file` raises)."""
    stem = code_dir / name.replace(".", "/")
    candidates = [stem.with_name(f"{stem.name}.py")]
    if not path.partition(":")[0].endswith(".py"):
        candidates.insert(0, stem / "__init__.py")  # a package goes before a module, as for Python
    return next((file for file in candidates if os.path.isfile(file)), None)


def _installed_file(name: str) -> Path | None:
    """Where Python would import a module from, without importing the packages it lies in."""
    where: list[str] | None = None
    spec = None
    parts = name.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), where)
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin else None


def _packages(file: Path, root: Path) -> Iterator[Path]:
    """`__init__.py` of every package that a module lies in: they run before it does."""
    for folder in file.relative_to(root).parents:
        init = root / folder / "__init__.py"
        if folder != Path() and init != file and init.is_file():
            yield init


def _sources(module: Path, name: str, code_dir: Path) -> dict[str, bytes]:
    root = code_dir.resolve()
    found: dict[str, bytes] = {}
    todo = [module, *_packages(module, code_dir)]
    while todo:
        file = todo.pop()
        relative = file.relative_to(code_dir).as_posix()
        if relative in found:
            continue
        if not file.resolve().is_relative_to(root):
            raise SpecError(
                f"model.path: the model's module imports {file}, a link that leads out of {code_dir}",
                "put the file itself into the folder",
            )
        found[relative] = _source(file)
        todo += _imported(found[relative], file, code_dir)
    return dict(sorted(found.items()))


def _imported(source: bytes, file: Path, root: Path) -> Iterator[Path]:
    """Files below the root that a source imports; packages on the way count, for they run too."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whoever imports it is told so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            start = root
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(file.relative_to(root).parents):
                continue  # beyond the folder, which Python refuses
            start = file.parents[node.level - 1] if node.level else root
            names = [".".join(filter(None, (node.module, alias.name))) for alias in node.names]
        else:
            continue
        for name in names:
            here = start
            for part in name.split("."):
                candidates = (here / f"{part}.py", here / part / "__init__.py")
                yield from (candidate for candidate in candidates if os.path.isfile(candidate))
                here = here / part


def _source(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            source = opened.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise SpecError(
            f"model.path: the model's module imports {file}, which cannot be read: {error.strerror}",
            "make it readable",
        ) from None
    if len(source) > MAX_SOURCE_BYTES:
        raise SpecError(f"model.path: {file} has more than {MAX_SOURCE_BYTES} bytes of source", "split it")
    return source
