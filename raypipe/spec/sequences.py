"""What `data.task: sequence_to_sequence` says of the other fields of `data`: one text is read, another is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.language import ALL_CHARACTERS
from raypipe.spec.text_transforms import TextMisfit, TokensTransform

TASK = "sequence_to_sequence"

EXAMPLE = "{kind: tokens, columns: [source], tokenizer: char, max_length: 64, max_vocabulary: 256}"


class TargetTokens(Spec):
    """How a target's texts are cut into tokens, which together are the text again."""

    tokenizer: Literal["char", "byte", "bpe"] = "char"
    """`char`: Unicode code points, those that train holds. `byte`: UTF-8, so that none is unknown. `bpe`: bytes, and
    byte pairs merged within words, learned from train (Sennrich et al. 2016); none is unknown."""
    max_length: int = Field(ge=1, le=2**16)
    """The most tokens of a target; as many steps may an answer take, and one more for its end."""
    max_vocabulary: int | None = Field(default=None, ge=258, le=2**20)
    """With `bpe`: all ids are below this; 258 of them are there before the first merge."""
    refuse: list[TextMisfit] = ["too_long", "unknown"]
    """Targets that stop the run, as those of a `tokens` transform do: `unknown` are characters of val and test that
    train has not. Without them a target is cut, or can never be answered rightly."""

    @model_validator(mode="after")
    def vocabulary_fits_the_tokenizer(self) -> Self:
        if (self.tokenizer == "bpe") == (self.max_vocabulary is None):
            found = "without it" if self.tokenizer == "bpe" else f"with tokenizer: {self.tokenizer}"
            raise ValueError(f"target_tokens.max_vocabulary goes with tokenizer: bpe, e.g. 1024; found {found}")
        return self

    @model_serializer(mode="wrap")
    def unset_is_left_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Versions that were made before there was `bpe` keep their names."""
        return {name: value for name, value in write(self).items() if name != "max_vocabulary" or value is not None}

    def of(self, target: str) -> TokensTransform:
        """The transform of the target's column."""
        return TokensTransform(
            kind="tokens",
            columns=[target],
            tokenizer=self.tokenizer,
            max_length=self.max_length,
            max_vocabulary=ALL_CHARACTERS if self.tokenizer == "char" else self.max_vocabulary,
            refuse=self.refuse,
        )


def sequence_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `data` with those that follow from the task: the column of the one `tokens` transform is what is
    read, and its texts are refused where they do not fit.

    Raises:
        ValueError: a field says otherwise, or one is missing.
    """
    if fields.get("task") != TASK:
        if fields.get("target_tokens") is not None:
            raise ValueError(f"target_tokens says how targets that are texts are written; it needs task: {TASK}")
        return dict(fields)
    if fields.get("target_tokens") is None:
        raise ValueError(f"task: {TASK} needs target_tokens, e.g. target_tokens: {{tokenizer: char, max_length: 64}}")
    written: Any = fields.get("transforms") or []
    transforms = cast("list[Any]", written) if isinstance(written, list) else []
    tokens = [place for place, each in enumerate(transforms) if _field(each, "kind") == "tokens"]
    columns = _field(transforms[tokens[0]], "columns") if len(tokens) == 1 else None
    if not isinstance(columns, list) or len(cast("list[Any]", columns)) != 1 or len(transforms) > 1:
        found = f"{len(transforms)} transforms, {len(tokens)} of them tokens" if len(transforms) != 1 else "another one"
        found = "a tokens transform of several columns" if len(tokens) == len(transforms) == 1 else found
        raise ValueError(
            f"task: {TASK} reads one text, cut into tokens by one transform; found {found}; write transforms: "
            f"[{EXAMPLE}]"
        )
    if fields.get("features", columns) != columns:
        raise ValueError(f"task: {TASK} reads the column of its tokens transform, {columns}; leave features out")
    return {**fields, "features": columns, "transforms": [_refusing(transforms[0])]}


def _refusing(tokens: Any) -> Any:
    """A tokens transform as a user wrote it, with `refuse` where it was left out."""
    refuse: list[TextMisfit] = ["empty", "too_long"]
    if _field(tokens, "tokenizer") != "word":  # rare words are unknown to every list of words
        refuse.append("unknown")
    if isinstance(tokens, TokensTransform):
        return tokens if "refuse" in tokens.model_fields_set else tokens.model_copy(update={"refuse": refuse})
    return {"refuse": refuse, **cast("Mapping[str, Any]", tokens)}


def _field(section: Any, name: str) -> Any:
    """A field of a section, as a file or as code gives it."""
    if isinstance(section, Mapping):
        return cast("Mapping[str, Any]", section).get(name)
    return getattr(section, name, None)
