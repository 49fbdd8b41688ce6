"""The certificate of an endpoint: tried before anything listens with it, kept for HAProxy, trusted by the probe.

What becomes of it while HAProxy runs: certificate_watch.py.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path

from raypipe.errors import ServeError
from raypipe.serve import certificate_watch as watch
from raypipe.spec.access import TlsSpec

BUNDLE = "tls.pem"
"""What HAProxy reads: certificates and key in one, in its private folder."""

SETTINGS = "certificate.json"
"""In the same folder: what is watched."""


def check(tls: TlsSpec) -> str:
    """Try both files as a server and its client would.

    Returns:
        Both as one text.
    Raises:
        ServeError: one cannot be read, they do not fit together, or the certificate is not valid today.
    """
    where = f"serve.tls: {tls.cert_file} and {tls.key_file}"
    try:
        return watch.pair(*_paths(tls))
    except watch.PairError as error:
        raise ServeError(
            f"{where} cannot be served with: {error}",
            "cert_file holds the certificate and those of who signed it, key_file its key without a password, as PEM",
        ) from None
    except OSError as error:
        raise ServeError(
            f"serve.tls: {error.filename} cannot be read: {error.strerror}", "it must be there on this node"
        ) from None


def write_bundle(tls: TlsSpec, folder: Path) -> None:
    """Write what HAProxy starts with, and what is watched from then on.

    Raises:
        ServeError: see `check`.
    """
    watch.keep(check(tls), str(folder / BUNDLE))
    cert, key = _paths(tls)
    settings = {"cert_file": cert, "key_file": key, "bundle": str(folder / BUNDLE)}
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def forget_bundle(folder: Path) -> None:
    """Remove what an endpoint with TLS left there."""
    for name in (BUNDLE, SETTINGS):
        (folder / name).unlink(missing_ok=True)


def trusting(cert_file: str) -> ssl.SSLContext:
    """What a client connects with that trusts the file's own certificate, as it is now, and no other.

    Raises:
        ServeError: there is none in it.
    """
    try:
        return watch.trusting(Path(cert_file).expanduser().read_text(encoding="ascii"))
    except (watch.PairError, OSError, UnicodeDecodeError):
        raise ServeError(f"serve.tls.cert_file: {cert_file} holds no certificate", "it must be PEM") from None


def _paths(tls: TlsSpec) -> tuple[str, str]:
    return str(Path(tls.cert_file).expanduser()), str(Path(tls.key_file).expanduser())
