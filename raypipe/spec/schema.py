"""JSON Schema of a pipeline file, for editors.

The text under a field of a spec class describes it. Pydantic can read these texts as it builds a class, but that parses
each class's source again in every process that imports the specs, a third of a second; here it is done when asked for.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel

from raypipe.spec.base import Spec
from raypipe.spec.pipeline import PipelineSpec


def json_schema() -> dict[str, Any]:
    """Each field has a description."""
    schema = PipelineSpec.model_json_schema()
    definitions = cast("dict[str, dict[str, Any]]", schema["$defs"])
    for name, texts in _texts_by_class().items():
        definition = schema if name == PipelineSpec.__name__ else definitions.get(name, {})
        for field, described in definition.get("properties", {}).items():
            if field in texts:
                described.setdefault("description", texts[field])
    for variant in definitions.values():
        for tag in variant.get("properties", {}).values():
            if "const" in tag:  # the word that chooses a variant means what the variant is
                tag.setdefault("description", str(variant.get("description", "")).split("\n\n")[0])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _texts_by_class() -> dict[str, dict[str, str]]:
    """Class -> field -> the text under it, inherited fields included."""
    own: dict[str, dict[str, str]] = {}
    classes = [Spec, *_subclasses(Spec)]
    for module in sorted({each.__module__ for each in classes}):
        for node in ast.parse(inspect.getsource(sys.modules[module])).body:
            if isinstance(node, ast.ClassDef):
                own[node.name] = dict(_texts(node))
    return {
        each.__name__: {
            field: text for base in reversed(each.__mro__) for field, text in own.get(base.__name__, {}).items()
        }
        for each in classes
    }


def _subclasses(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            yield field.target.id, inspect.cleandoc(text.value.value)
