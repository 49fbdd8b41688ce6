"""How much memory this process may still take: what the machine has left, and what a container allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files with limit and use of a control group, and the line of memory.stat with the file cache it can give back."""


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that can be taken now; the tightest of the machine and the control groups around this process decides.

    Args:
        root: where `proc` and `sys` are.
    """
    return max(0, min([_left_on_machine(root), *_left_in_groups(root)]))


def _left_on_machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # where there is no /proc: all of it


def _left_in_groups(root: Path) -> Iterator[int]:
    """Of the group this process is in and all groups above it; inside a container some of them cannot be seen."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "sys/fs/cgroup/memory", V1) if controllers else (root / "sys/fs/cgroup", V2)
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            left = _left_in(group, *files)
            if left is not None:
                yield left


def _left_in(group: Path, limit_file: str, used_file: str, cache_name: str) -> int | None:
    limit, used = _lines(group / limit_file), _lines(group / used_file)
    if not limit or not used or limit[0] == "max":
        return None
    cache = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith(f"{cache_name} ")]
    return int(limit[0]) - int(used[0]) + sum(cache)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # this machine keeps no such account
        return []
