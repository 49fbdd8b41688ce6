"""Content encodings of request bodies: gzip and deflate, opened no further than a body may be large."""

from __future__ import annotations

import zlib

from raypipe.errors import RequestError

Body = bytes | bytearray

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
"""What zlib is told to expect; clients send deflate with and without its frame."""


def decoded(body: Body, headers: dict[bytes, bytes], max_bytes: int) -> Body:
    """The body as it was before its content-encoding.

    Raises:
        RequestError: 415 for another encoding, 400 for damaged data, 413 where it holds more than `max_bytes`.
    """
    found = decoded_if_small(body, headers, max_bytes)
    if found is None:
        raise RequestError(
            f"the request body holds more than {max_bytes} bytes once it is opened; at most as many are read",
            "send fewer rows per request, or raise serve.max_body_bytes",
            status=413,
        )
    return found


def decoded_if_small(body: Body, headers: dict[bytes, bytes], max_bytes: int) -> Body | None:
    """The same, or None where it is encoded and holds more than `max_bytes`.

    Raises:
        RequestError: 415 for another encoding, 400 for damaged data.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is None:
        return body
    name = encoding[:80].decode("latin-1").strip().lower()
    if name == "identity":
        return body
    if name in ("gzip", "x-gzip"):
        return _inflated(body, GZIP, name, max_bytes)
    if name == "deflate":
        has_frame = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _inflated(body, ZLIB if has_frame else RAW, name, max_bytes)
    raise RequestError(
        f"content-encoding {name} is not read here", "send the body as gzip, deflate or uncompressed", status=415
    )


def _inflated(body: Body, wbits: int, name: str, max_bytes: int) -> bytes | None:
    opener = zlib.decompressobj(wbits)
    try:
        found = opener.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RequestError(f"the body is no {name} data", "check the header content-encoding") from None
    if len(found) > max_bytes:
        return None
    if not opener.eof:
        raise RequestError(f"the {name} data of the body ends early", "send it whole")
    return found
