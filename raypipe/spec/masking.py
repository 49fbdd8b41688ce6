"""What happens to columns with personal data before anything is kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.sources import CsvSource, Source
from raypipe.spec.splits import ColumnSplit, TimeSplit

if TYPE_CHECKING:  # spec/data.py asks this module
    from raypipe.spec.data import DataSpec

KEYED = ("hash", "tokenize")
"""Methods that need a key."""


def _variable(name: str) -> str:
    """The message never shows what was found: it may be the key itself, in the wrong place."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name):
        raise ValueError("must be the name of an environment variable, in capitals, e.g. MASKING_KEY; never the key")
    return name


class MaskSpec(Spec):
    """What replaces the values of some columns; a missing value stays missing."""

    columns: list[str] = Field(min_length=1)
    """Columns that are masked this way."""
    method: Literal["drop", "redact", "hash", "tokenize"]
    """`drop` removes the column; `redact` writes [redacted]; `hash` writes the HMAC-SHA256 in hex, so that equal values
    stay equal; `tokenize` writes other letters for letters and other digits for digits (two values may then agree; use
    hash where they must not)."""
    key_env: Annotated[str, AfterValidator(_variable)] | None = None
    """Environment variable that holds the key of hash and tokenize, 32 bytes or more; another key, other values."""

    @model_validator(mode="after")
    def keyed_methods_have_a_key(self) -> Self:
        if (self.method in KEYED) != (self.key_env is not None):
            raise ValueError(
                f"method: {self.method} needs key_env: the environment variable that holds the key"
                if self.method in KEYED
                else f"method: {self.method} takes no key; leave key_env out"
            )
        return self


def refuse_taught(spec: DataSpec) -> None:
    """Raise ValueError where a masked column is needed as it is: by the model, the split or an expectation."""
    names = [name for mask in spec.masking for name in mask.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"masking names {twice} twice; a column is masked in one way")
    exact = {spec.split.column} if isinstance(spec.split, TimeSplit | ColumnSplit) else set[str]()
    for name, mask in spec.masked.items():
        if name in spec.targets:
            raise ValueError(f"masking: '{name}' is the target; the model has to learn its values")
        if name == spec.weight:
            raise ValueError(f"masking: '{name}' is data.weight, whose numbers are needed")
        if name in (spec.features or ()) or any(name in transform.columns for transform in spec.transforms):
            raise ValueError(f"masking: '{name}' is a feature, but {_WHY_NO_FEATURE[mask.method]}; leave it out")
        if name in exact:
            raise ValueError(f"masking: the split reads the values of '{name}', so it cannot be masked")
        reads = {*spec.split.reads, *([spec.stratify_by] if spec.stratify_by else [])}
        if name in reads and mask.method in ("drop", "redact"):
            raise ValueError(
                f"masking: the split needs to tell the values of '{name}' apart, which method: {mask.method} "
                "leaves no way to do; use method: hash"
            )
        expected = {column for expectation in spec.expectations for column in expectation.reads}
        if name in expected and mask.method == "drop":
            raise ValueError(f"masking: method: drop removes '{name}', but an expectation reads it")
        if mask.method in KEYED and any(_compares_no_text(name, part.source) for part in spec.parts()):
            raise ValueError(
                f"masking: method: {mask.method} reads '{name}' of CSV as text, but a `where` does not compare it "
                f"with text; compare it with text, or say in dtypes of the source what '{name}' is, e.g. int64"
            )


def _compares_no_text(name: str, source: Source) -> bool:
    """Whether a condition compares a column of CSV that nobody declared with numbers or true/false."""
    if not isinstance(source, CsvSource) or source.dtypes.get(name, "string") != "string":
        return False
    found = [condition.value for condition in source.where if condition.column == name]
    values = [item for value in found for item in (value if isinstance(value, list) else [value])]
    return any(value is not None and not isinstance(value, str) for value in values)


_WHY_NO_FEATURE = {
    "drop": "method: drop removes it",
    "redact": "method: redact makes all its values the same",
    "hash": "what method: hash writes has no meaning a model could learn, and changes with the key",
    "tokenize": "what method: tokenize writes has no meaning a model could learn, and changes with the key",
}
