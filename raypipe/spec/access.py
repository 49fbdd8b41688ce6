"""Who may ask an endpoint: API keys, TLS, and pages of other origins.

Nothing here is secret: keys and certificates are named by the file or variable that holds them.
"""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec

ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
ORIGIN = r"https?://(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:[0-9]{1,5})?"
USUAL_PORTS = {"http": "80", "https": "443"}


def check_file_path(text: str) -> str:
    """`text` if it names the same file for every process.

    Raises:
        ValueError: it is relative, and replicas run in other folders; or it holds what no path holds.
    """
    if not os.path.isabs(os.path.expanduser(text)) or not text.isprintable():
        raise ValueError(f"found {text[:80]!r}; must be an absolute path, e.g. /etc/raypipe/keys.jsonl or ~/keys.jsonl")
    return text


def check_origin(text: str) -> str:
    """`text` if a browser would send it as the origin of a page.

    Raises:
        ValueError: it would never be equal to one.
    """
    fits = re.fullmatch(ORIGIN, text)
    scheme = text.partition(":")[0]
    if not fits or (fits[3] or "")[1:] == USUAL_PORTS.get(scheme):
        raise ValueError(
            f"found {text[:80]!r}; must be scheme and host in lower case, and the port where it is not the usual one, "
            "e.g. https://app.example.com or http://localhost:3000"
        )
    return text


FilePath = Annotated[str, AfterValidator(check_file_path)]
Origin = Annotated[str, AfterValidator(check_origin)]


class AuthSpec(Spec):
    """API keys. Only digests of keys are kept anywhere; `raypipe key NAME` makes a key and its line."""

    keys_env: str | None = Field(default=None, pattern=ENV_NAME)
    """Environment variable, where Ray's processes start, that holds the lines."""
    keys_file: FilePath | None = None
    """File that holds the lines, on every node; read again within a second of a change."""

    @model_validator(mode="after")
    def one_place(self) -> Self:
        if (self.keys_env is None) == (self.keys_file is None):
            raise ValueError("give one of keys_env, the name of a variable, and keys_file, the path of a file")
        return self


class TlsSpec(Spec):
    """HTTPS, TLS 1.2 and later, HTTP/2 and HTTP/1.1; files that change are taken up within seconds."""

    cert_file: FilePath
    """PEM: the certificate, then those of who signed it; on every node of a cluster, as the key."""
    key_file: FilePath
    """PEM: the private key, without a password."""


class CorsSpec(Spec):
    """Pages of other origins that may ask from a browser."""

    origins: list[Origin] = Field(min_length=1, max_length=100)
    """Exactly as browsers send them, e.g. https://app.example.com; there is no pattern."""
