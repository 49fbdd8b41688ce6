"""Addresses a user writes: in a file, in an option, in the environment."""

from __future__ import annotations

import re
from urllib.parse import unquote

from raypipe.errors import SpecError, masked

_ONE_SLASH = re.compile(r"(s3|gs|file|https?):(?!//)", re.IGNORECASE)

_CREDENTIALS = (
    "leave them out: credentials come from the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on), or use an open "
    "address or a local copy"
)


def check_address(address: str) -> None:
    """Refuse an address that could give a secret away, or that is a mistyped one and would name a local folder.

    Whoever may read a run's records reads its spec, and messages end up in logs: so the error repeats no secret.

    Raises:
        ValueError: it holds a user name, a password or a query, or its scheme is followed by one slash.
    """
    if found := _ONE_SLASH.match(address):
        scheme = found[1].lower()
        raise ValueError(
            f"found '{scheme}:' without two slashes after it; an address is written {scheme}://..., "
            f"and a folder of that name ./{scheme}:..."
        )
    scheme, separator, rest = address.partition("://")
    if not separator:
        return
    netloc = unquote(re.split(r"[/?#]", rest, maxsplit=1)[0])
    is_key = scheme.lower() == "s3" and ":" in netloc  # no bucket's name holds one
    if "@" in netloc or is_key or masked(address, queries=False) != address:
        raise ValueError(
            f"{_without(scheme, rest)} is written with a user name or password, which would be stored with the run "
            f"and shown; {_CREDENTIALS}"
        )
    if scheme.lower() in ("http", "https") and "?" in rest:
        raise ValueError(
            f"{_without(scheme, rest)} is written with a query (`?...`), which may hold a token and would be stored "
            "with the run; use an address without one, s3:// with credentials from the environment, or a local copy"
        )


def refuse_userinfo(option: str, address: str) -> None:
    """Refuse an address of a cluster or an S3 server with a user name or password in it.

    Neither Ray nor S3 takes them, and logs and dashboards would show them.

    Args:
        option: what gave the address, for the message.
    Raises:
        SpecError: it has one; the message does not repeat it.
    """
    if "@" in address:
        raise SpecError(
            f"{option} is written with a user name or password before the '@'",
            "leave them out; Ray's token comes from RAY_AUTH_TOKEN, S3's credentials from AWS_ACCESS_KEY_ID and so on",
        )


def _without(scheme: str, rest: str) -> str:
    """The address without anything that may be secret."""
    shown = rest.rpartition("@")[2].partition("?")[0]
    netloc = shown.partition("/")[0]
    hides = "%" in netloc or (":" in netloc and scheme.lower() == "s3")
    return f"{scheme}://..." if hides else f"{scheme}://{shown}"
