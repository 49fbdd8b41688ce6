"""What Ray Serve starts in HAProxy's place: checks the file Ray wrote, takes in what it leaves open, becomes HAProxy.

Ray's template binds statistics and metrics to every address whatever `serve.host` is, lets every local user command
HAProxy over its socket, and waits for a request's header without end. There is no setting for any of it. A file this
program does not know in full, because another Ray wrote it, is refused: better no endpoint than an open one.

It is run as a script, by path and with the standard library alone, because every reload waits for it:

    haproxy_launcher.py BINARY -db -f CONFIG [what else Ray says]
"""

from __future__ import annotations

import os
import re
import sys

LOOPBACK = "127.0.0.1"

HEADER_TIMEOUT_S = 5
"""Longest a client may take to send the header of a request; else a few hundred slow ones hold every connection."""

SECTIONS = ("global", "defaults", "frontend", "backend", "listen")

PRIVATE_BINDS = ("listen stats", "frontend prometheus")
"""Sections that nobody else than this machine has a reason to reach."""

PUBLIC_BINDS = ("frontend http_frontend", "frontend grpc_frontend")
"""Sections that listen where the user wants them to: Ray writes `serve.host` there."""

EVERYWHERE = re.compile(r"\*?:(\d+)")
SOCKET = re.compile(r"stats socket (/\S+) mode 666 level admin expose-fd listeners")


class UnknownConfigError(Exception):
    """The file is not what the Ray that raypipe is pinned to writes."""


def closed_to_others(config: str) -> str:
    """The same configuration, with what is nobody else's business on loopback and for this user.

    Args:
        config: as Ray Serve 2.60 writes it.
    Raises:
        UnknownConfigError: there is something in it that may listen, or something missing.
    """
    lines: list[str] = []
    section = ""
    seen: list[str] = []
    for line in config.splitlines():
        words = line.split()
        if words and not line[0].isspace() and not line.startswith("#"):
            if words[0] not in SECTIONS:
                raise UnknownConfigError(f"unknown section: {line}")
            section = " ".join(words[:2])
            seen.append(section)
        elif words[:1] == ["bind"]:
            line = _bind(section, line, words)
            seen.append(f"bind in {section}")
        elif words[:2] == ["stats", "socket"]:
            line = _socket(section, line)
            seen.append("stats socket")
        elif words[:2] == ["timeout", "http-request"] and section == "defaults":
            seen.append("timeout http-request")
        lines.append(line)
        if line == "defaults" and "timeout http-request" not in config:
            lines.append(f"    timeout http-request {HEADER_TIMEOUT_S}s")
    once = ["global", "defaults", "stats socket"]
    for name in [*once, *(f"bind in {each}" for each in (*PRIVATE_BINDS, PUBLIC_BINDS[0]))]:
        if seen.count(name) != 1:
            raise UnknownConfigError(f"{name}: found {seen.count(name)} times, must be there once")
    return "\n".join(lines) + "\n"


def _bind(section: str, line: str, words: list[str]) -> str:
    if section in PUBLIC_BINDS:
        return line
    everywhere = EVERYWHERE.fullmatch(words[1]) if len(words) == 2 else None
    if section not in PRIVATE_BINDS or everywhere is None:
        raise UnknownConfigError(f"unknown address to listen on, in {section or 'no section'}: {line.strip()}")
    return f"    bind {LOOPBACK}:{everywhere[1]}"


def _socket(section: str, line: str) -> str:
    path = SOCKET.fullmatch(line.strip())
    if section != "global" or path is None:
        raise UnknownConfigError(f"unknown control socket: {line.strip()}")
    return f"    stats socket {path[1]} mode 600 level admin expose-fd listeners"


def main(arguments: list[str]) -> None:
    """Become HAProxy with the checked file; ends with a message on stderr, which Ray tells, where it is unknown."""
    binary, *rest = arguments
    # HAProxy reads every file that -f names or that stands after `--`; -C says where these are looked for.
    if rest.count("-f") != 1 or rest[-1] == "-f" or {"--", "-C"} & set(rest):
        sys.exit(f"raypipe does not start HAProxy: it needs one file, after -f, in {rest}")
    place = rest.index("-f") + 1
    config = rest[place]
    checked = f"{config}.checked"
    try:
        with open(config, encoding="utf-8") as file:
            text = closed_to_others(file.read())
    except (UnknownConfigError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"raypipe does not start HAProxy with {config}: {error}")
    handle = os.open(f"{checked}.{os.getpid()}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{checked}.{os.getpid()}", checked)
    rest[place] = checked
    # Ray finds its HAProxy again by its own file's name among the arguments; the name of a peer is the one that may be
    # anything and, without peers, does nothing.
    os.execv(binary, [binary, *rest, "-L", config])


if __name__ == "__main__":
    main(sys.argv[1:])
