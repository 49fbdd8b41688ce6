"""What the serving benchmarks share: child servers, wrk as the client, JSON lines, what machine this is."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_TIMEOUT_S = 90.0

WRK_LUA = """
local bodies = {{}}
for path in string.gmatch("{bodies}", "[^;]+") do
  local file = io.open(path, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
wrk.method = "POST"
{headers}
local requests = {{}}
function init(args)
  for number, body in ipairs(bodies) do requests[number] = wrk.format(nil, nil, nil, body) end
end
math.randomseed(os.time())
local turn = math.random(#bodies)
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
"""Requests are formatted once: the client shares two cores with the servers."""

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Load:
    """What a closed loop of clients saw.

    Attributes:
        requests_per_s: all answers.
        failed: answers that were not 2xx.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int = 0


def say(**fields: object) -> None:
    """One JSON line."""
    print(json.dumps(fields), flush=True)


def median(loads: Sequence[Load]) -> Load:
    """Of each figure by itself."""
    return Load(
        round(statistics.median(each.requests_per_s for each in loads), 1),
        round(statistics.median(each.p50_ms for each in loads), 3),
        round(statistics.median(each.p99_ms for each in loads), 3),
        sum(each.failed for each in loads),
    )


def wrk_script(folder: Path, name: str, bodies: Sequence[bytes], headers: Mapping[str, str]) -> Path:
    """Files for wrk: the bodies, sent in turn from any of them on, and the script that sends them."""
    paths = []
    for number, body in enumerate(bodies):
        paths.append(folder / f"{name}-{number}.body")
        paths[-1].write_bytes(body)
    script = folder / f"{name}.lua"
    lines = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in headers.items())
    script.write_text(WRK_LUA.format(bodies=";".join(map(str, paths)), headers=lines))
    return script


def start_wrk(url: str, script: Path, connections: int, seconds: int) -> subprocess.Popen[str]:
    """A closed loop of that many connections, in one thread of its own process."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark asks with wrk, which is not here: apt-get install wrk")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=30s", "--latency", "-s", str(script), url]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wrk_result(client: subprocess.Popen[str]) -> Load:
    """Wait for it."""
    text = client.communicate(timeout=120)[0]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if client.returncode or rate is None or "Socket errors" in text:
        raise RuntimeError(f"wrk: {text}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    at = {
        share: float(value) * MILLISECONDS[unit]
        for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    }
    return Load(float(rate.group(1)), round(at["50"], 3), round(at["99"], 3), int(failed.group(1)) if failed else 0)


def wrk(url: str, script: Path, connections: int, seconds: int) -> Load:
    """Ask as fast as that many connections can.

    Raises:
        RuntimeError: an answer was not 2xx.
    """
    load = wrk_result(start_wrk(url, script, connections, seconds))
    if load.failed:
        raise RuntimeError(f"{url}: {load.failed} answers were not 2xx")
    return load


class Server:
    """A server as a child process, with the processes it started.

    Attributes:
        url: its address without a path.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def pause(self) -> None:
        """Stop it where it stands: some servers ask themselves for work all the time while they have none."""
        for each in self._family():
            with suppress(psutil.NoSuchProcess):
                each.suspend()

    def resume(self) -> None:
        for each in self._family():
            with suppress(psutil.NoSuchProcess):
                each.resume()

    def end(self) -> None:
        """Ask it to end, and make those of its processes end that do not."""
        self.resume()
        family = self._family()
        self._process.terminate()
        _, left = psutil.wait_procs(family, timeout=5)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait(20)


@contextmanager
def child_server(command: Sequence[str], port: int, *, folder: Path, **env: str) -> Iterator[Server]:
    """A server, once it answers anything at all.

    Args:
        folder: where its log goes.
    """
    server = None
    with (folder / f"server-{port}.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                try:
                    httpx.get(server.url, trust_env=False)
                    break
                except httpx.TransportError:  # not yet
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        raise RuntimeError(f"did not start: {' '.join(command)}\n{log.read()[-2000:]}") from None
                    time.sleep(0.1)
            yield server
        finally:
            server.end()


def surroundings(names: Sequence[str]) -> dict[str, object]:
    """Hardware and versions.

    Args:
        names: packages; those that are not here are left out.
    """
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else "?",
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": versions,
    }


def private_environment(folder: Path) -> None:
    """Nothing of this run stays in the user's home, and no other Ray is met."""
    for name in [name for name in os.environ if name.startswith("RAY")]:
        if not name.startswith("RAYPIPE"):
            del os.environ[name]
    ours = {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    os.environ.update(ours, OMP_NUM_THREADS="1")


def free_port() -> int:
    """A port nobody listens on now, below the ephemeral range."""
    while True:
        port = random.randint(20_000, 29_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
        return port
