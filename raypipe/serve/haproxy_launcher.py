"""What Ray Serve starts in HAProxy's place: checks the file Ray wrote, merges our rules into it, becomes HAProxy.

Ray's template binds statistics and metrics to every address whatever `serve.host` is, lets every local user command
HAProxy over its socket, has no TLS, no limits for a client, and turns 503 into 500. There is no setting for any of it.
A file this program does not know in full, because another Ray wrote it, is refused: better no endpoint than an open
one.

Rules are written as HAProxy's own configuration (haproxy_rules.py). In a section that both have, ours come first, and
Ray's of the same name, as `timeout client` or `errorfile 503`, go. Of a `bind` the rules give host and options, and the
port is Ray's.

It is run as a script, by path and with the standard library alone, because every reload waits for it:

    haproxy_launcher.py RULES BINARY -db -f CONFIG [what else Ray says]
"""

from __future__ import annotations

import os
import re
import sys

LOOPBACK = "127.0.0.1"

SECTIONS = ("global", "defaults", "frontend", "backend", "listen")

PRIVATE_BINDS = ("listen stats", "frontend prometheus")
"""Sections that nobody else than this machine has a reason to reach."""

PUBLIC_BINDS = ("frontend http_frontend", "frontend grpc_frontend")
"""Sections that listen where the user wants them to."""

ABSENT_WITHOUT_USE = ("frontend grpc_frontend",)
"""Sections that rules may name and Ray leaves out."""

TWO_WORDS = ("timeout", "option", "errorfile", "stats")
"""First words of lines that are of one kind only together with their second."""

ONE_WORD = ("maxconn", "retry-on", "retries", "balance")
"""Lines there can be one of; those of tune.* as well."""

WATCHED = "certificate.json"
"""Beside the rules, where there is a certificate: what certificate_watch.py is told."""

EVERYWHERE = re.compile(r"\*?:(\d+)")
SOCKET = re.compile(r"stats socket (/\S+) mode 666 level admin expose-fd listeners")

Rules = dict[str, list[list[str]]]
"""Section -> its lines, as words."""


class UnknownConfigError(Exception):
    """The file is not what the Ray that raypipe is pinned to writes."""


def merged(config: str, rules: str = "") -> str:
    """Ray's configuration with our rules, and with what is nobody else's business on loopback and for this user.

    Args:
        config: as Ray Serve 2.60 writes it.
        rules: ours.
    Raises:
        UnknownConfigError: there is something in it that may listen, or something missing.
    """
    ours = _parsed(rules)
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
            lines.append(line)
            lines += [f"    {' '.join(each)}" for each in ours.get(section, ()) if each[0] != "bind"]
            continue
        if words[:1] == ["bind"]:
            line = _bind(section, line, words, ours)
            seen.append(f"bind in {section}")
        elif words[:2] == ["stats", "socket"]:
            line = _socket(section, line)
            seen.append("stats socket")
        elif words and _kind(words) and _kind(words) in {_kind(each) for each in ours.get(section, ())}:
            continue
        lines.append(line)
    once = ["global", "defaults", "stats socket"]
    for name in [*once, *(f"bind in {each}" for each in (*PRIVATE_BINDS, PUBLIC_BINDS[0]))]:
        if seen.count(name) != 1:
            raise UnknownConfigError(f"{name}: found {seen.count(name)} times, must be there once")
    for name in ours.keys() - set(seen) - set(ABSENT_WITHOUT_USE):
        if not name.startswith("backend raypipe_"):
            raise UnknownConfigError(f"{name}: not there, but raypipe has rules for it")
        lines += [name, *(f"    {' '.join(each)}" for each in ours[name])]
    return "\n".join(lines) + "\n"


def _parsed(rules: str) -> Rules:
    found: Rules = {}
    section = ""
    for line in rules.splitlines():
        words = line.split()
        if words and line[0].isspace():
            found[section].append(words)
        elif words:
            section = " ".join(words)
            found[section] = []
    return found


def _kind(words: list[str]) -> str:
    """By what Ray's lines are told from ours that take their place; empty where there may be any number."""
    if words[0] in TWO_WORDS:
        return " ".join(words[:2])
    return words[0] if words[0] in ONE_WORD or words[0].startswith("tune.") else ""


def _bind(section: str, line: str, words: list[str], rules: Rules) -> str:
    if section in PUBLIC_BINDS:
        given = next((each[1:] for each in rules.get(section, ()) if each[0] == "bind"), None)
        if given is None:
            return line
        port = words[1].rpartition(":")[2]
        return f"    bind {' '.join([f'{given[0]}:{port}', *words[2:], *given[1:]])}"
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
    if len(arguments) < 2:
        sys.exit("raypipe does not start HAProxy: it needs rules and a program")
    rules, binary, *rest = arguments
    # HAProxy reads every file that -f names or that stands after `--`; -C says where these are looked for.
    if rest.count("-f") != 1 or rest[-1] == "-f" or {"--", "-C"} & set(rest):
        sys.exit(f"raypipe does not start HAProxy: it needs one file, after -f, in {rest}")
    place = rest.index("-f") + 1
    config = rest[place]
    checked = f"{config}.checked"
    try:
        text = merged(_text_of(config), _text_of(rules))
    except (UnknownConfigError, OSError, UnicodeDecodeError) as error:
        sys.exit(f"raypipe does not start HAProxy with {config}: {error}")
    handle = os.open(f"{checked}.{os.getpid()}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{checked}.{os.getpid()}", checked)
    rest[place] = checked
    if "-c" not in rest:
        _watch_certificate(os.path.join(os.path.dirname(rules), WATCHED), text)
    # Ray finds its HAProxy again by its own file's name among the arguments; the name of a peer is the one that may be
    # anything and, without peers, does nothing.
    os.execv(binary, [binary, *rest, "-L", config])


def _watch_certificate(settings: str, config: str) -> None:
    """Where there is one: in a process that ends with this one, which is about to be HAProxy."""
    if not os.path.exists(settings):
        return
    control = re.search(r"stats socket (\S+)", config)
    assert control is not None, "merged() has looked"
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "certificate_watch.py")
    words = [sys.executable, "-I", "-S", script, settings, control[1], str(os.getpid())]
    os.posix_spawn(sys.executable, words, os.environ)


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    main(sys.argv[1:])
