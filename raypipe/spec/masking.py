"""What happens to columns with personal data before anything is kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec

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
