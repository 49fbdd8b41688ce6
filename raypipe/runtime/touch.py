"""Whether a Ray head listens at an address, asked in milliseconds: Ray's own clients try for minutes before."""

from __future__ import annotations

import os
import socket

from raypipe.errors import ClusterError, SpecError

LOOPBACK = ("127.0.0.1", "localhost", "::1")

TOUCH_TIMEOUT_S = 5.0

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""How every HTTP/2 client begins, with empty settings; a gRPC server, as Ray's head is one, answers with its own."""

SETTINGS = 4
"""The type of such a frame, its fourth byte."""

HINT = "check the address and RAY_AUTH_TOKEN, or unset RAY_ADDRESS to run on this machine"


def is_loopback(address: str) -> bool:
    """Whether `host:port` names this machine by a loopback address."""
    return "://" not in address and _split(address)[0] in LOOPBACK


def check_answers(address: str) -> None:
    """Refuse an address where nothing listens, or something that is no Ray head.

    Args:
        address: `host:port` or `ray://host:port`; what is neither is left to Ray.
    Raises:
        ClusterError: with the reason.
        SpecError: there is no such port or host name.
    """
    host, port = _split(address.removeprefix("ray://"))
    if port is None:
        return
    if not 0 < port < 2**16:  # a resolver takes a larger one modulo 65,536, and reaches another program
        raise SpecError(f"the cluster's address {address[:80]}: ports go from 1 to 65535", HINT)
    try:
        with socket.create_connection((host, port), TOUCH_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
                _check_greeting(connection, address)
    except TimeoutError:
        raise ClusterError(f"no Ray cluster answers at {address} within {TOUCH_TIMEOUT_S:g} s", HINT) from None
    except UnicodeError:
        raise SpecError(f"the cluster's address {address[:80]} has no host name", HINT) from None
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error.strerror or error}", HINT) from None


def _check_greeting(connection: socket.socket, address: str) -> None:
    connection.sendall(GREETING)
    answer = b""
    while len(answer) < 9:
        piece = connection.recv(9 - len(answer))
        if not piece:
            break
        answer += piece
    if len(answer) < 9 or answer[3] != SETTINGS:
        raise ClusterError(
            f"what listens at {address} is no Ray head",
            "give the port of Ray's head, 6379 unless it was started with another (the dashboard's is 8265)",
        )


def _split(address: str) -> tuple[str, int | None]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or "/" in host:
        return address, None
    return host.strip("[]"), int(port[:9])
