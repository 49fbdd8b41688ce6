"""What `data.task: language_model` says of the other fields of `data`: one text is read and predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

TASK = "language_model"

TEXT, POSITION = "text", "position"
"""Columns of `format: text_windows`."""

CONTEXT_LENGTH = 128
"""Tokens, where the file says nothing."""

LEARNED_FROM = ("time", "directories")
"""Splits that tell which part of a text is train before it is cut into windows."""

ALL_CHARACTERS = 2 + 0x110000
"""More ids than there are characters: every one that train holds has its own."""


def language_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `data` with those that follow from the task: the text is both what is read and what is predicted,
    its tokens are those of the source, and the splits are contiguous parts of each file.

    Raises:
        ValueError: a field says otherwise.
    """
    source = _section(fields.get("source"))
    found = source.get("format")
    if found is not None and found != "text_windows":
        raise ValueError(
            f"task: language_model reads source.format: text_windows, found {str(found)[:40]}; write source: "
            "{format: text_windows, path: input.txt}"
        )
    for name, wanted in (("target", TEXT), ("features", [TEXT])):
        if fields.get(name, wanted) != wanted:
            raise ValueError(f"task: language_model predicts the text that it reads; leave {name} out")
    length = source.get("context_length", CONTEXT_LENGTH)
    if any(_section(each).get("kind") != "tokens" for each in fields.get("transforms") or ()):
        raise ValueError("task: language_model takes its text as source.tokenizer cuts it; leave transforms out")
    split: Any = fields.get("split") or {}
    if "kind" not in _section(split):
        split = {"kind": "time", "column": POSITION, **_section(split)}
    tokens = _tokens(source, _section(split).get("kind"))
    made: dict[str, Any] = {"target": TEXT, "features": [TEXT], "split": split}
    return {**fields, **made, "transforms": [{**tokens, "max_length": length + 1}] if isinstance(length, int) else []}


def _tokens(source: Mapping[str, Any], split: Any) -> dict[str, Any]:
    """The transform of the text, without its length."""
    tokenizer = source.get("tokenizer", "char")
    tokens: dict[str, Any] = {"kind": "tokens", "columns": [TEXT], "tokenizer": tokenizer}
    if tokenizer == "char":
        return {**tokens, "max_vocabulary": ALL_CHARACTERS}
    if tokenizer != "bpe":
        return tokens
    if split not in LEARNED_FROM:
        raise ValueError(
            f"source.tokenizer: bpe learns from train before the text is cut into windows, so split.kind must be "
            f"{' or '.join(LEARNED_FROM)}, found {str(split)[:40]}; leave split.kind out"
        )
    return {**tokens, "max_vocabulary": source.get("max_vocabulary"), "merges": source.get("merges")}


def _section(written: Any) -> Mapping[str, Any]:
    """The fields of a section, as a file or as code gives it."""
    if isinstance(written, Mapping):
        return cast("Mapping[str, Any]", written)
    return cast("Mapping[str, Any]", getattr(written, "__dict__", {}))
