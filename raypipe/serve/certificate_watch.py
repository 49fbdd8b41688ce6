"""Beside HAProxy: gives it a certificate whose files have changed, without a reload and without a failed request.

Only a pair that a client would take is given; any other changes nothing. What was last taken is kept, so that HAProxy
can start with it at any time. It is run as a script, by path and with the standard library alone, and ends within a
second of the HAProxy that it was started beside:

    certificate_watch.py SETTINGS SOCKET PID
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time

LOOK_EVERY_S = 1.0

ANSWER_TIMEOUT_S = 5.0

END = "-----END CERTIFICATE-----"


class PairError(Exception):
    """Certificate and key cannot be served with."""


def pair(cert_file: str, key_file: str) -> str:
    """Certificates and key as one text, tried as a server and its client would.

    Raises:
        OSError: a file cannot be read.
        PairError: they do not fit together, or the certificate is not valid now.
    """
    try:
        with open(cert_file, encoding="ascii") as file:
            certs = file.read()
        with open(key_file, encoding="ascii") as file:
            key = file.read()
    except UnicodeDecodeError:
        raise PairError("they are no PEM certificate and key") from None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(cert_file, key_file, password=lambda: "")
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise PairError("they do not belong together") from None
        raise PairError("they are no PEM certificate and key") from None
    _meet(server, trusting(certs))
    # HAProxy's commands end at an empty line
    return "\n".join(line for line in f"{certs}\n{key}".splitlines() if line.strip()) + "\n"


def trusting(certs: str) -> ssl.SSLContext:
    """What a client connects with that trusts the first of these certificates, by whoever it is signed, and no other.

    Raises:
        PairError: there is none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the name is what clients call it by; this one calls an address
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=certs[: certs.index(END) + len(END)])
    except (ValueError, ssl.SSLError):
        raise PairError("there is no PEM certificate") from None
    return context


def _meet(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    try:
        for _ in range(10):
            waiting = 0
            for side in sides:
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    waiting += 1
            if not waiting:
                return
    except ssl.SSLCertVerificationError as error:
        raise PairError(error.verify_message) from None
    except ssl.SSLError as error:
        raise PairError(f"no connection comes about: {error.reason}") from None
    raise PairError("no connection comes about")


def keep(text: str, bundle: str) -> None:
    """Write both, for this user alone, in one step."""
    handle = os.open(f"{bundle}.{os.getpid()}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(f"{bundle}.{os.getpid()}", bundle)


def give(text: str, bundle: str, path: str) -> None:
    """Have the HAProxy that listens at a socket take it up.

    Raises:
        OSError, PairError: it does not.
    """
    _tell(path, f"set ssl cert {bundle} <<\n{text}\n")
    said = _tell(path, f"commit ssl cert {bundle}\n")
    if "Success" not in said:
        _tell(path, f"abort ssl cert {bundle}\n")
        raise PairError(f"HAProxy does not take it: {' '.join(said.split())[-300:]}")


def _tell(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(ANSWER_TIMEOUT_S)
        control.connect(path)
        control.sendall(command.encode("ascii"))
        said = b""
        while part := control.recv(4096):
            said += part
    return said.decode("utf-8", "replace")


class Watch:
    """Looks at the files of a certificate.

    Args:
        path: HAProxy's control socket.
    """

    def __init__(self, cert_file: str, key_file: str, bundle: str, path: str) -> None:
        self._files = cert_file, key_file
        self._bundle = bundle
        self._path = path
        self._seen: object = None

    def look(self) -> str:
        """Once; files as they were at the last look are not read again.

        Returns:
            Why a change was not taken up; empty where there was none, or it was.
        """
        seen = [_state(file) for file in self._files]
        if seen == self._seen:
            return ""
        self._seen = seen
        try:
            text = pair(*self._files)
            with open(self._bundle, encoding="ascii") as file:
                if file.read() == text:
                    return ""
            give(text, self._bundle, self._path)
            keep(text, self._bundle)
        except PairError as error:
            return str(error)
        except OSError as error:
            self._seen = None  # HAProxy may be just starting
            return error.strerror or type(error).__name__
        return ""


def _state(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def main(settings: str, path: str, beside: str) -> None:
    """Look every second until the process that started this one has ended; it may have before this one began.

    Args:
        beside: its number.
    """
    with open(settings, encoding="utf-8") as file:
        watch = Watch(path=path, **json.load(file))
    told = ""
    while os.getppid() == int(beside):
        why = watch.look()
        if why and why != told:
            print(f"raypipe: the certificate of serve.tls stays as it was: {why}", file=sys.stderr, flush=True)
        told = why
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
