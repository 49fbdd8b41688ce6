"""YAML of a stranger -> plain values with their lines; what it may cost is bounded before it is built.

Aliases (`*name`) let a few lines stand for billions of values, so each node is counted with all that it stands for, in
one pass over the parser's events, before anything is built from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from raypipe.errors import SpecError, one_line

FieldPath = tuple[str | int, ...]

MAX_FILE_BYTES = 2**20
"""A file that names 20,000 columns takes about half of this."""

MAX_NODES = 100_000
"""Values, lists and mappings that a text may stand for, aliases written out."""

MAX_DEPTH = 50
"""Lists and mappings inside each other."""

MAX_NUMBER_CHARS = 100
"""Of a whole or real number; reading one of a million digits takes minutes."""

NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")

_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where PyYAML was built with it


class _Loader(_FastLoader):
    """The safe loader, for numbers of a sane length."""

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in NUMBER_TAGS and len(node.value) > MAX_NUMBER_CHARS:
            problem = f"a number of {len(node.value):,} characters; at most {MAX_NUMBER_CHARS}, or put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return _FastLoader.construct_scalar(self, node)


@dataclass
class YamlText:
    """A checked text.

    Attributes:
        value: what it says; no two places share one list or mapping, even where an alias was written.
        lines: where each field was written: `name:line`.
    """

    value: Any
    lines: dict[FieldPath, str] = field(default_factory=lambda: dict[FieldPath, str]())

    def mapping(self, name: str) -> dict[str, Any]:
        """The value of a whole file. Raises SpecError where it is no mapping."""
        value = self.value
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        found = "nothing" if value is None else f"a {type(value).__name__}"
        message = f"{name}: found {found}; a pipeline file is a mapping with name, data and model"
        raise SpecError(message, _other_kind(name))


def read_text(path: Path) -> str:
    """The text of a pipeline file; at most `MAX_FILE_BYTES` of it are ever read.

    Raises:
        SpecError: it is not there, not a file, too large, or not UTF-8.
    """
    if path.is_dir():
        raise SpecError(f"{path}: is a folder, not a pipeline file", _instead_of_folder(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SpecError(
                f"{path}: is larger than {MAX_FILE_BYTES:,} bytes; a pipeline file is a page or two of YAML",
                "name the pipeline file, not the data",
            )
        return content.decode("utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file", "raypipe init DIR makes a runnable project") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path that cannot be one
        raise SpecError(f"{path}: cannot be read as UTF-8 text ({error})", _other_kind(str(path))) from None


def parse(text: str, name: str) -> YamlText:
    """Read YAML.

    Args:
        name: what messages and lines call the text.
    Raises:
        SpecError: it is no YAML, has a key twice or one that is no text, or stands for more than the limits above.
    """
    try:
        _check_size(text, name)
        loader = _Loader(text)
        try:
            node: Any = loader.get_single_node()
            lines: dict[FieldPath, str] = {}
            if node is not None:
                _collect_lines(node, (), lines, name)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except ValueError as error:  # a text that looks like a date or a number but is none, e.g. 2024-99-99
        raise SpecError(f"{name}: not valid YAML: {error}", "put the value in quotes") from None
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise SpecError(f"{name}:{line}: not valid YAML: {error.reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or error
        raise SpecError(f"{where}: not valid YAML: {one_line(str(problem))}", _other_kind(name)) from None
    return YamlText(_unshared(value), lines)


def _check_size(text: str, name: str) -> None:
    """Refuse what is too deep or stands for too many values.

    Raises:
        SpecError: with the line where a limit is passed.
    """
    named: dict[str, _Extent | None] = {}  # by anchor; None while what it names is still open
    outer = [_Extent()]
    events: Any = yaml.parse(text, Loader=cast("Any", _Loader))
    for event in events:
        where, anchor = f"{name}:{event.start_mark.line + 1}", str(getattr(event, "anchor", None) or "")
        ended = _Extent(anchor)
        if isinstance(event, yaml.CollectionStartEvent):
            outer.append(ended)
            named.update({anchor: None} if anchor else {})
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = outer.pop()
        elif isinstance(event, yaml.AliasEvent):
            alias = named.get(anchor, _Extent())  # an unknown one is the composer's to refuse
            if alias is None:
                raise SpecError(f"{where}: *{anchor} stands inside what it names, so it has no end")
            ended = _Extent(nodes=alias.nodes, height=alias.height)
        elif not isinstance(event, yaml.ScalarEvent):
            continue  # where the text and its documents begin and end
        if not isinstance(event, yaml.CollectionStartEvent):
            named.update({ended.anchor: ended} if ended.anchor else {})
            outer[-1].add(ended)
        if len(outer) - 1 + ended.height > MAX_DEPTH:
            raise SpecError(f"{where}: nested more than {MAX_DEPTH} deep; a pipeline file never is")
        if sum(each.nodes for each in outer) > MAX_NODES:
            raise SpecError(
                f"{where}: stands for more than {MAX_NODES:,} values, aliases (*name) written out",
                "name data in a file of its own, and use fewer aliases",
            )


@dataclass
class _Extent:
    """What a node stands for, aliases written out.

    Attributes:
        nodes: itself and all inside.
        height: lists and mappings inside each other, itself included if it is one.
    """

    anchor: str = ""
    nodes: int = 1
    height: int = 0

    def add(self, child: _Extent) -> None:
        """Take in a node that lies directly inside."""
        self.nodes += child.nodes
        self.height = max(self.height, child.height + 1)


def _collect_lines(node: Any, path: FieldPath, lines: dict[FieldPath, str], name: str) -> None:
    lines[path] = f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag not in TEXT_TAGS:
                raise SpecError(f"{where}: a key is {_kind_of_key(key)}; it must be text", "put it in quotes")
            here = (*path, str(key.value))
            if here in lines:
                raise SpecError(f"{where}: {dotted(here)} appears twice; keep one")
            _collect_lines(value, here, lines, name)
            lines[here] = where
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*path, index), lines, name)


def _unshared(value: Any) -> Any:
    """A copy in which an alias is a value of its own: an override then changes one place, not all that share it."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_unshared(each) for each in cast("list[Any]", value)]
    return value


def _kind_of_key(key: Any) -> str:
    kind = str(key.tag).rpartition(":")[2]
    return f"'{key.value[:80]}', which YAML reads as {kind}" if isinstance(key, yaml.ScalarNode) else f"a {kind}"


def dotted(path: FieldPath) -> str:
    """`train.optimizer.lr`, cut where a key is absurdly long."""
    return ".".join(str(part)[:80] for part in path)


def _other_kind(name: str) -> str:
    """A hint for a file whose ending says that it is no YAML."""
    ending = Path(name).suffix
    if ending in ("", ".yaml", ".yml", ".json"):
        return ""
    return f"a pipeline file is YAML, and this one ends in {ending}; raypipe init DIR makes one to start from"


def _instead_of_folder(folder: Path) -> str:
    inside = sorted(folder.glob("*.y*ml"))
    best = next((file for file in inside if file.stem == "pipeline"), inside[0] if inside else None)
    return f"name the file in it: {best}" if best else "name the YAML file; raypipe init DIR makes a runnable project"
