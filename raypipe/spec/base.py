"""The base of everything a user writes: frozen, closed, with a canonical fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""A name that is also part of object keys and routes: lower case, digits, `.`, `_`, `-`; at most 63 characters."""


class Spec(BaseModel):
    """Base of all specs: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def fingerprint(self, *also: Any, exclude: set[str] | None = None) -> str:
        """Hash of meaning: equal specs and equal `also` values (JSON-able) give equal fingerprints, 16 hex digits."""
        return fingerprint(self.model_dump(mode="json", exclude=exclude), *also)


def fingerprint(*values: Any) -> str:
    """Hash JSON-able values canonically; 16 hex digits."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
