"""Which sockets the processes of one command listen on, looked at while it runs."""

from __future__ import annotations

import ipaddress
import socket
import threading
from pathlib import Path

import psutil

MARK = "TEST_MARK"
"""A variable in the environment of the command; all that it starts inherit it, whoever their parent is later."""

POLL_S = 0.3


class Watch(threading.Thread):
    """Looks every POLL_S until the block ends.

    Attributes:
        open_to_others: "address:port command" of every socket that another machine could reach.
        on_loopback: commands that listened where only this machine can reach them.
        modes: of folders named like those Ray is given, by name.
        niceness: of those commands, the highest that was seen.
    """

    def __init__(self, mark: str, folders: Path) -> None:
        super().__init__(name="sockets", daemon=True)
        self._mark, self._folders = mark, folders
        self._over = threading.Event()
        self._marked: dict[int, bool] = {}
        self.open_to_others: set[str] = set()
        self.on_loopback: set[str] = set()
        self.modes: dict[str, int] = {}
        self.niceness: dict[str, int] = {}

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        for found in psutil.net_connections(kind="inet"):
            listens = found.status == psutil.CONN_LISTEN or (found.type == socket.SOCK_DGRAM and not found.raddr)
            command = self._command(found.pid) if listens and found.pid else None
            if command is None or not found.laddr:
                continue
            if _is_loopback(found.laddr.ip):
                self.on_loopback.add(command)
            else:
                self.open_to_others.add(f"{found.laddr.ip}:{found.laddr.port} {command}")
        for folder in self._folders.glob("raypipe-*"):
            try:
                self.modes[folder.name] = folder.stat().st_mode & 0o777
            except FileNotFoundError:  # it has just been removed
                continue

    def _command(self, pid: int) -> str | None:
        """Its command line, which Ray's workers change, if it belongs to the command; else None."""
        try:
            process = psutil.Process(pid)
            if pid not in self._marked:
                self._marked[pid] = process.environ().get(MARK) == self._mark
            if not self._marked[pid]:
                return None
            command = " ".join(process.cmdline())[:200]
            self.niceness[command] = max(process.nice(), self.niceness.get(command, process.nice()))
            return command
        except psutil.Error:  # it has ended, or is another user's
            return None


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def processes_of(mark: str, timeout_s: float) -> list[str]:
    """Command lines of processes of the command that do not leave by themselves in time."""

    def is_marked(process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == mark
        except psutil.Error:  # it has ended, or is another user's
            return False

    _, alive = psutil.wait_procs([each for each in psutil.process_iter() if is_marked(each)], timeout=timeout_s)
    return [" ".join(process.cmdline()) for process in alive]
