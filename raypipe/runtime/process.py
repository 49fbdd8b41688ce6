"""Which process of which machine: whether somebody who left a note is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self


@dataclass(frozen=True)
class ProcessId:
    """One process, told from a later one that was given the same number.

    Attributes:
        host: the machine's name.
        started: when it started, in the kernel's ticks since boot; 0 where the system does not tell.
    """

    host: str
    pid: int
    started: int

    @classmethod
    def own(cls) -> Self:
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()))

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Self:
        """The inverse of `document`. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(str(document["host"]), int(document["pid"]), int(document["started"]))

    def document(self) -> dict[str, Any]:
        """As a JSON mapping."""
        return asdict(self)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is, or was, a process of another machine: whether it lives cannot be told from here."""
        return self.host != socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether it runs on this machine now."""
        if self.is_elsewhere:
            return False
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # it lives, as another user
            pass
        except (OSError, OverflowError):
            return False
        return _started(self.pid) == self.started


def _started(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:  # no such process, or no /proc on this system
        return 0
    # The name in brackets may itself hold brackets: what follows the last one is field 3 and on; the start is field 22.
    return int(text.rpartition(")")[2].split()[19])
