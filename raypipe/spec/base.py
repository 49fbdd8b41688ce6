"""The base of everything a user writes: frozen, closed, with a canonical fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema

NAME_PATTERN = r"^(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62}$"


def check_name(text: str) -> str:
    """`text` if it may be part of an object key.

    Raises:
        ValueError: it might leave its folder or is not portable.
    """
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            f"found {text[:80]!r}; must be 1 to 63 of a-z 0-9 . _ - , start with a letter or digit, and not hold '..'"
        )
    return text


def check_alias(text: str) -> str:
    """`text` if it may name an alias.

    Raises:
        ValueError: it cannot be a name, or MODEL@ALIAS would read like MODEL@VERSION.
    """
    if check_name(text).isdecimal():
        raise ValueError(f"found {text!r}, which would read like a version number; use a name, e.g. champion")
    return text


Name = Annotated[str, AfterValidator(check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""A name that is also part of object keys and routes: lower case, digits, `.`, `_`, `-`; at most 63 characters."""

AliasName = Annotated[str, AfterValidator(check_alias), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""A name that is not a number alone."""


class Spec(BaseModel):
    """Base of all specs: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def fingerprint(self, *also: Any, exclude: set[str] | None = None) -> str:
        """Hash of meaning: equal specs and equal `also` values (JSON-able) give equal fingerprints, 16 hex digits."""
        return fingerprint(self.model_dump(mode="json", exclude=exclude), *also)


def fingerprint(*values: Any) -> str:
    """Hash JSON-able values canonically; 16 hex digits."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
