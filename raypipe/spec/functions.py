"""Which functions and classes a module offers, told by its syntax tree."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from raypipe.errors import SpecError, did_you_mean

RESERVED = frozenset({*sys.stdlib_module_names, "__main__", "raypipe"})
"""First parts of module names that mean what runs already, whatever files of these names lie in the folder."""

Binding = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom
)
"""What gives a name its value at the top of a module."""


@dataclass
class Functions:
    """Finds where a name of a module was written.

    A name that a file merely imported from an installed module (`from subprocess import run`) is not one of its own
    functions: with arguments from elsewhere it would do anything.

    Args:
        sources: path below the folder -> source.
        allowed: installed modules whose functions may be named.
    """

    sources: Mapping[str, bytes]
    allowed: Collection[str] = ()

    def check(self, path: str, file: str) -> None:
        """Refuse a `model.path` whose function is not written in the folder.

        Raises:
            SpecError: the file is no Python, or the name is not there or comes from an installed module.
        """
        name = path.partition(":")[2]
        if (foreign := self._foreign(file, name, set(), path)) is None:
            return
        if foreign == "":
            offered = _names(self._tree(file, path))
            raise SpecError(
                f"model.path: {path}: {file} has no function or class '{name}'{did_you_mean(name, offered)}",
                f"it has {', '.join(sorted(offered)[:10])}" if offered else "write one there that returns the network",
            )
        raise SpecError(
            f"model.path: {path}: '{name}' is not written in {file}, which imports it from '{foreign}'",
            f"write a function there that calls it, or give --allow-module {foreign}",
        )

    def _foreign(self, file: str, name: str, seen: set[tuple[str, str]], path: str) -> str | None:
        """None where the name is written below the folder, else the module it comes from; empty: nobody binds it."""
        if (file, name) in seen:
            return ""
        seen.add((file, name))
        bound = _bound(self._tree(file, path))
        if name in bound:  # which of several will hold is known when it runs: none may come from elsewhere
            origins = [self._origin(node, file, name, seen, path) for node in bound[name]]
            return next((origin for origin in origins if origin is not None), None)
        for star in bound.get("*", ()):
            if isinstance(star, ast.ImportFrom) and (target := self._target(star, file)) is not None:
                found = self._foreign(target, name, seen, path)
                if found != "":
                    return found
        return ""

    def _origin(self, node: Binding, file: str, name: str, seen: set[tuple[str, str]], path: str) -> str | None:
        if isinstance(node, ast.ImportFrom):
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            module = self._target(node, file)
            if module is None:
                return None if node.module in self.allowed else node.module or "."
            return self._foreign(module, original, seen, path)
        if isinstance(node, ast.Import):
            return next(a.name for a in node.names if (a.asname or a.name.partition(".")[0]) == name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for value in _aliased(node.value):  # another name for something: what matters is what that is
                origin = self._foreign(file, value, seen, path)
                if origin or (origin == "" and hasattr(builtins, value)):
                    return origin or "builtins"
        return None

    def _target(self, node: ast.ImportFrom, file: str) -> str | None:
        """The file that `from .module import name` reads the name from, where it is one of ours."""
        if not node.level and (node.module or "").partition(".")[0] in RESERVED:
            return None
        folder = PurePosixPath(file).parent
        for _ in range(node.level - 1):
            folder = folder.parent
        base = folder if node.level else PurePosixPath()
        here = base / (node.module or "").replace(".", "/")
        candidates = [(here / "__init__.py").as_posix(), f"{here}.py"]
        return next((c for c in candidates if c in self.sources), None)

    def _tree(self, file: str, path: str) -> ast.Module:
        try:
            return ast.parse(self.sources[file])
        except SyntaxError as error:
            raise SpecError(
                f"model.path: {path}: {file} line {error.lineno} is no Python: {error.msg}", "correct it"
            ) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise SpecError(f"model.path: {path}: {file} is no Python: {type(error).__name__}: {error}") from None


def _names(tree: ast.Module) -> list[str]:
    return [n for n, nodes in _bound(tree).items() if isinstance(nodes[-1], ast.FunctionDef | ast.ClassDef)]


def _bound(tree: ast.Module) -> dict[str, list[Binding]]:
    """What binds each name at the top of a module; `*` for what is imported without names."""
    found: dict[str, list[Binding]] = {}
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Import):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        else:
            continue
        for name in names:
            found.setdefault(name, []).append(node)
    return found


def _aliased(value: ast.expr | None) -> Iterator[str]:
    """Names of which one is, or holds, what an expression gives; what a call gives was made by this file."""
    if isinstance(value, ast.Name):
        yield value.id
    parts: list[ast.expr | None] = []
    if isinstance(value, ast.Attribute | ast.Subscript | ast.Starred | ast.NamedExpr):
        parts = [value.value]
    elif isinstance(value, ast.IfExp):
        parts = [value.body, value.orelse]
    elif isinstance(value, ast.BoolOp | ast.Dict):
        parts = [*value.values]
    elif isinstance(value, ast.Tuple | ast.List | ast.Set):
        parts = [*value.elts]
    for part in parts:
        yield from _aliased(part)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run with the module: those in `if`, `try`, `with` and loops too."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.For | ast.While):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.With):
            yield from _statements(node.body)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *handlers, *node.orelse, *node.finalbody])
