"""YAML plus `key=value` overrides -> PipelineSpec; every error names file, line and field."""

from __future__ import annotations

import itertools
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast

from pydantic import BaseModel, ValidationError

from raypipe.errors import SpecError, did_you_mean, masked, one_line
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.ranges import Range
from raypipe.spec.yaml_text import MAX_DEPTH, FieldPath, dotted, parse, read_text

MAX_PROBLEMS = 20
"""Told at once; a file of another program has thousands."""


@dataclass(frozen=True)
class PipelineFile:
    """A checked pipeline file.

    Attributes:
        spec: the whole tree, `data.root` made absolute.
        path: the file it came from.
        code_dir: folder that `model.kind: import` paths start from.
        overrides: the `field=value` texts laid over it.
        lines: where each field was written.
    """

    spec: PipelineSpec
    path: Path
    code_dir: Path
    overrides: tuple[str, ...] = ()
    lines: Mapping[FieldPath, str] = field(default_factory=lambda: dict[FieldPath, str](), repr=False)

    def where(self, *path: str | int) -> str:
        """`pipeline.yaml:12` or `--set ...`: where a field, or the nearest thing around it, was written."""
        return _where(path, self.lines, str(self.path))


def load_pipeline(path: str | Path, overrides: Iterable[str] = ()) -> PipelineFile:
    """Read, override and check a pipeline file.

    Args:
        path: the YAML file.
        overrides: `field.path=value` texts; values are parsed as YAML.
    Raises:
        SpecError: with file, line and field of every problem found.
    """
    path = Path(path)
    overrides = tuple(overrides)
    spec, lines = _parse(read_text(path), str(path), overrides)
    code_dir = path.resolve().parent
    root = spec.data.root
    if root is None or "://" not in root:
        root = str(code_dir / os.path.expanduser(root or ""))
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"root": root})})
    return PipelineFile(spec=spec, path=path, code_dir=code_dir, overrides=overrides, lines=lines)


def parse_pipeline(text: str, *, name: str = "<text>", overrides: Iterable[str] = ()) -> PipelineSpec:
    """Check the text of a pipeline file; see `load_pipeline`."""
    return _parse(text, name, overrides)[0]


def _parse(text: str, name: str, overrides: Iterable[str]) -> tuple[PipelineSpec, dict[FieldPath, str]]:
    written = parse(text, name)
    raw, lines = written.mapping(name), written.lines
    for override in overrides:
        _lay_over(raw, lines, override)
    try:
        spec = PipelineSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_explain(error, raw, lines, name)) from None
    _check_space(spec, lines, name)
    return spec, lines


def with_values(spec: PipelineSpec, values: Mapping[str, Any]) -> PipelineSpec:
    """The same pipeline with some fields replaced, e.g. one point of a search space.

    Args:
        values: by field path; of two that overlap, the one that names less is set last.
    Raises:
        SpecError: a field does not exist or does not take the value.
    """
    raw = spec.model_dump(mode="json")
    for key, value in sorted(values.items(), key=lambda each: len(parse_path(each[0]))):
        _set(raw, parse_path(key), deepcopy(value), key)  # a choice is drawn again by other trials
    try:
        return PipelineSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_explain(error, raw, {}, ", ".join(f"{k}={v}" for k, v in values.items()))) from None


# ---- overrides


def parse_path(text: str) -> FieldPath:
    """`data.transforms.0.kind` as keys and list indices; `00` is no index, so that each field has one spelling."""
    return tuple(int(part) if re.fullmatch("0|[1-9][0-9]{0,5}", part) else part for part in text.split("."))


def _lay_over(raw: dict[str, Any], lines: dict[FieldPath, str], override: str) -> None:
    """Set one field in the file's values, and where it was written."""
    origin = _shown_override(override)
    key, sign, text = override.partition("=")
    path = parse_path(key)
    if not sign or not key:
        raise SpecError(f"{origin}: must be field=value", "for example --set train.epochs=3")
    if len(path) > MAX_DEPTH:
        raise SpecError(f"{origin}: names a field {len(path)} deep; the deepest is under {MAX_DEPTH}")
    try:
        value = parse(text, "the value").value
    except SpecError as error:
        raise SpecError(f"{origin}: {error.message}", error.hint) from None
    _set(raw, path, value, origin)
    for replaced in [known for known in lines if known[: len(path)] == path]:
        del lines[replaced]
    lines[path] = origin


def _shown_override(override: str) -> str:
    """How a message names an override: in full, but for an address, which may hold a password."""
    key, _, value = override.partition("=")
    shown = f"{key}=..." if ":/" in value else override
    return f"--set {shown if len(shown) <= 200 else shown[:197] + '...'}"


def _set(raw: Any, path: FieldPath, value: Any, origin: str) -> None:
    here = raw
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if not _can_hold(here, part):
            raise SpecError(f"{origin}: {dotted(path[:depth])} is not a mapping, so it has no '{part}'")
        if last:
            here[part] = value
        elif not _has(here, part) or here[part] is None:
            here[part] = _default_section(path[: depth + 1])
        here = here[part]


def _has(here: Any, part: str | int) -> bool:
    """Whether a mapping or list has this key or index."""
    return part in here if isinstance(here, dict) else _can_hold(here, part)


def _can_hold(here: Any, part: str | int) -> bool:
    """Whether `here[part]` can be set: any key of a mapping, an existing index of a list."""
    if isinstance(here, list):
        return isinstance(part, int) and part < len(cast("list[Any]", here))
    return isinstance(here, dict)


def _default_section(path: FieldPath) -> dict[str, Any]:
    """What a section that is not written stands for, so far as its fields do not say so themselves: its kind."""
    kind: Any = PipelineSpec
    for part in path[:-1]:
        kind = _step(kind, part)
    for option in _flatten(kind):
        if isinstance(option, type) and issubclass(option, BaseModel) and path[-1] in option.model_fields:
            tag: Any = getattr(option.model_fields[str(path[-1])].default, "kind", None)
            return {} if tag is None else {"kind": tag}
    return {}


# ---- errors


def _explain(error: ValidationError, raw: Any, lines: Mapping[FieldPath, str], name: str) -> str:
    messages: list[str] = []
    problems = error.errors(include_url=False)
    for problem in problems[:MAX_PROBLEMS]:
        path = _written_path(problem["loc"], raw)
        where = _where(path, lines, name)
        messages.append(one_line(f"{where}: {dotted(path) or 'the file'}: {_rule(problem, path)}"))
    if len(problems) > MAX_PROBLEMS:
        messages.append(f"{name}: and {len(problems) - MAX_PROBLEMS:,} more")
    return "\n".join(dict.fromkeys(messages))


def _where(path: FieldPath, lines: Mapping[FieldPath, str], name: str) -> str:
    return next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), name)


def _written_path(loc: tuple[str | int, ...], raw: Any) -> FieldPath:
    """pydantic's location without the tags of unions, which the user never wrote."""
    path: list[str | int] = []
    here = raw
    kind: Any = PipelineSpec
    for index, part in enumerate(loc):
        is_tag = _tagged(kind, part) is not None
        kind = _step(kind, part)
        if is_tag:
            continue
        if _has(here, part):
            here = here[part]
        elif index < len(loc) - 1 or not _can_hold(here, part):
            continue
        path.append(part)
    return tuple(path)


def _rule(problem: Any, path: FieldPath) -> str:
    kind, ctx, found = problem["type"], problem.get("ctx", {}), problem.get("input")
    if kind == "missing":
        return "is missing; it must be given"
    if kind == "extra_forbidden":
        known = _fields_at(problem["loc"][:-1])
        return f"unknown field{did_you_mean(str(path[-1]), known)}; known here: {', '.join(known)}"
    if kind == "union_tag_invalid":
        tag = str(ctx.get("tag"))
        options = [t.strip(" '") for t in str(ctx.get("expected_tags", "")).split(",")]
        key = str(ctx.get("discriminator", "")).strip("'")
        return f"{key} is '{tag[:80]}'{did_you_mean(tag, options)}; must be one of {', '.join(options)}"
    if kind == "union_tag_not_found":
        return f"found {_show(found)}; must be a mapping with {ctx.get('discriminator', 'kind')!s}"
    if kind == "literal_error":
        options = [t.strip(" '") for t in str(ctx.get("expected", "")).replace(" or ", ", ").split(",")]
        return f"found {_show(found)}{did_you_mean(str(found), options)}; must be one of {', '.join(options)}"
    if kind == "string_pattern_mismatch":
        return f"found {_show(found)}; must match {ctx.get('pattern')}"
    if kind == "value_error":
        return str(ctx.get("error", problem["msg"]))
    message = problem["msg"]
    return f"found {_show(found)}; {message[0].lower()}{message[1:]}"


def _show(value: Any) -> str:
    text = masked(json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(loc: tuple[str | int, ...]) -> list[str]:
    kind: Any = PipelineSpec
    for part in loc:
        kind = _step(kind, part)
    models = [m for m in _flatten(kind) if isinstance(m, type) and issubclass(m, BaseModel)]
    return sorted({info.alias or name for m in models for name, info in m.model_fields.items()})


def _tagged(kind: Any, part: str | int) -> type[BaseModel] | None:
    """The variant of a union that `part` is the tag of."""
    models = [option for option in _flatten(kind) if isinstance(option, type) and issubclass(option, BaseModel)]
    return next((m for m in models if len(models) > 1 and _tag(m) == part), None)


def _step(kind: Any, part: str | int) -> Any:
    variant = _tagged(kind, part)
    if variant is not None:  # before fields: a split of kind `column` has a field `column`
        return variant
    for option in _flatten(kind):
        if isinstance(option, type) and issubclass(option, BaseModel):
            if part in option.model_fields:
                return option.model_fields[str(part)].annotation
        elif typing.get_origin(option) is list:
            return typing.get_args(option)[0]
        elif typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
    return kind


def _tag(model: type[BaseModel]) -> str | None:
    for name, info in model.model_fields.items():
        if name in ("kind", "format") or info.alias == "from":
            args = typing.get_args(info.annotation)
            return args[0] if args else None
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    return required[0] if len(required) == 1 else None


def _flatten(kind: Any) -> list[Any]:
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _flatten(typing.get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [leaf for option in typing.get_args(kind) for leaf in _flatten(option)]
    if origin is Literal:
        return []
    return [kind]


# ---- search spaces


def _check_space(spec: PipelineSpec, lines: Mapping[FieldPath, str], name: str) -> None:
    if spec.tune is None:
        return
    ordered = {key: spec.tune.space[key] for key in spec.tune.in_order()}
    for key in spec.tune.space:
        where = f"{lines.get(('tune', 'space', key), name)}: tune.space.{key}"
        if key.split(".")[0] not in ("data", "model", "train", "seed"):
            raise SpecError(f"{where}: only fields under data, model, train, and seed can be searched")
        for point in _points(key, ordered, where):
            try:
                drawn = with_values(spec, point)
            except SpecError as error:
                section = key.rpartition(".")[0]
                hint = f"search all of {section}: {{choice: [{{kind: ..}}, {{kind: ..}}]}}"
                raise SpecError(f"{where}: {error.message}", hint if key.endswith(".kind") else "") from None
            if drawn.model.init_from != spec.model.init_from:  # it is found once, for all trials
                raise SpecError(
                    f"{where}: model.init_from cannot be searched; every trial starts from {spec.model.init_from}",
                    "leave it out of the space; give a model section that is searched the same init_from",
                )


def _points(key: str, space: Mapping[str, Range], where: str) -> Iterator[dict[str, Any]]:
    """Each end of a range; where it lies inside of a field that is searched too, or exists only beside some option of
    one, in each choice of that.

    Args:
        space: each field behind those it depends on.
    Raises:
        SpecError: such a choice sets the field itself, and would be overruled.
    """
    path, values = parse_path(key), space[key]
    if any(other != key and parse_path(other) == path for other in space):
        raise SpecError(f"{where}: is searched twice; keep one")
    beside = _needed_by(key, space)
    for drawn in itertools.product(*(space[other].bounds for other in beside)):
        chosen: dict[str, Any] = {}
        for other, value in zip(beside, drawn, strict=True):
            if space[other].applies(chosen):
                chosen[other] = value
        if not values.applies(chosen):
            continue
        for other, choice in chosen.items():
            if _is_around(other, key) and _sets(choice, path[len(parse_path(other)) :]):
                raise SpecError(
                    f"{where}: a choice of tune.space.{other} sets it too: {_show(choice)}",
                    "leave it out there, or search one of the two",
                )
        yield from ({**chosen, key: value} for value in values.bounds)


def _needed_by(key: str, space: Mapping[str, Range]) -> list[str]:
    """The searched fields around a field, those it exists beside, and what these need in turn; in the space's order."""
    needed: set[str] = set()
    left = [key]
    while left:
        each = left.pop()
        found = {other for other in space if other in space[each].when or _is_around(other, each)} - needed - {key}
        needed |= found
        left.extend(found)
    return [other for other in space if other in needed]


def _is_around(other: str, key: str) -> bool:
    outer, inner = parse_path(other), parse_path(key)
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _sets(choice: Any, path: FieldPath) -> bool:
    """Whether a value writes a field inside it."""
    for part in path:
        if not _has(choice, part):
            return False
        choice = choice[part]
    return True
