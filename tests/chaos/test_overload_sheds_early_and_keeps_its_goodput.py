"""Five times what an endpoint can answer: it answers as much as at its best, tells the rest at once, in flat memory."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from raypipe.records import Endpoint
from raypipe.serve.stage import deploy, stop
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.model import ImportModel
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import BatchingSpec, ServeSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(240)]

ROW_S = 0.01
"""What the model takes for a row, alone or among others: no batch makes it faster."""

SLOW_MODEL = f"""
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_outputs)

    def forward(self, x):
        time.sleep({ROW_S} * len(x))
        return self.layer(x)

def build(input_shape, num_outputs):
    return Slow(input_shape[0], num_outputs)
"""

TIMES = 5
PEAK_S, OVERLOAD_S = 5.0, 15.0
MAX_WAIT_S = 1.0
EARLY_S = 0.25
"""Median time to a refusal; an answer waits four times as long."""


@dataclass
class Outcomes:
    """What came of many requests."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    last: float = 0.0

    def note(self, status: int, seconds: float, answer: bytes) -> None:
        self.seconds.setdefault(status, []).append(seconds)
        self.bodies.setdefault(status, answer)
        self.last = time.monotonic()

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, []))


class Client:
    """Keeps as many connections as there are requests under way.

    A client that waits for its answers before it asks again would bring no overload about.
    """

    def __init__(self, endpoint: Endpoint, row: list[float]) -> None:
        host, _, port = endpoint.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        body = json.dumps({"instances": [{"x": row}]}).encode()
        fields = ["host: a", "content-type: application/json", f"content-length: {len(body)}"]
        self._sent = "\r\n".join(["POST /predict HTTP/1.1", *fields, "", ""]).encode() + body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, outcomes: Outcomes) -> None:
        start = time.monotonic()
        try:
            connection = self._free.pop() if self._free else await asyncio.open_connection(*self._address)
            reader, writer = connection
            writer.write(self._sent)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields[b"content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            outcomes.failures[repr(error)] += 1
            return
        outcomes.note(int(head.split()[1]), time.monotonic() - start, head + body)
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self._free.append(connection)

    async def closed_loop(self, connections: int, seconds: float) -> Outcomes:
        """Each asks again when it has its answer."""
        outcomes, until = Outcomes(), time.monotonic() + seconds

        async def again() -> None:
            while time.monotonic() < until:
                await self.ask(outcomes)

        await asyncio.gather(*(again() for _ in range(connections)))
        return outcomes

    async def open_loop(self, rate: float, seconds: float) -> Outcomes:
        """Requests come whether or not earlier ones have their answers."""
        outcomes, start = Outcomes(), time.monotonic()
        asked: list[asyncio.Task[None]] = []
        while (now := time.monotonic() - start) < seconds:
            asked += [asyncio.create_task(self.ask(outcomes)) for _ in range(int(now * rate) - len(asked))]
            await asyncio.sleep(0.005)
        await asyncio.gather(*asked)
        return outcomes

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


@pytest.fixture
def spec(free_port: int) -> Iterator[ServeSpec]:
    """One replica."""
    yield ServeSpec(
        port=free_port,
        start_timeout_s=90,
        max_replicas=1,
        engine="eager",  # a trace of the model would not wait
        resources=ResourceSpec(num_cpus=0.5),
        batching=BatchingSpec(max_rows=8, max_wait_s=MAX_WAIT_S),
        limits=LimitsSpec(max_connections_per_client=2000),
    )
    stop()


def test_overload_is_shed_early_and_as_much_is_answered_as_at_best(
    spec: ServeSpec, ray_cluster: SimpleNamespace, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    code = tmp_path / "code"
    code.mkdir()
    (code / "slow_model.py").write_text(SLOW_MODEL)
    own = ImportModel(kind="import", path="slow_model.py:build")
    model = model_version(store, tiny_dataset(store, {"x": x}, np.arange(8) % 2), name="slow", spec=own, code_dir=code)
    endpoint = deploy(spec, model, run_context(store, code_dir=code))

    async def story() -> tuple[Outcomes, float, Outcomes, float, Outcomes]:
        client = Client(endpoint, x[0].tolist())
        peak = await client.closed_loop(connections=16, seconds=PEAK_S)
        rate = TIMES * peak.count(200) / PEAK_S
        before = memory_bytes()
        start = time.monotonic()
        overload = await client.open_loop(rate, OVERLOAD_S)
        took_s, grown = time.monotonic() - start, memory_bytes() - before
        after = await client.closed_loop(connections=1, seconds=2.0)
        client.close()
        return peak, took_s, overload, grown, after

    peak, took_s, overload, grown, after = asyncio.run(story())
    best = peak.count(200) / PEAK_S
    goodput = overload.count(200) / took_s
    told = {status: len(seconds) for status, seconds in overload.seconds.items()}
    print(f"peak {best:.0f}/s, at {TIMES} times {goodput:.0f}/s answered, {told}, +{grown / 2**20:.0f} MiB")
    assert not overload.failures and set(overload.seconds) == {200, 503}
    assert overload.count(503) > 3 * overload.count(200), "it was an overload"
    assert goodput >= 0.9 * best
    assert statistics.median(overload.seconds[503]) < EARLY_S
    assert statistics.quantiles(overload.seconds[200], n=100)[-2] < 3 * MAX_WAIT_S
    head, body = overload.bodies[503].split(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "overloaded" and b"retry-after: " in head.lower()
    assert grown < 64 * 2**20
    assert set(after.seconds) == {200} and statistics.median(after.seconds[200]) < 10 * ROW_S, "as before, at once"


def memory_bytes() -> int:
    """Of the replica and HAProxy."""
    mine = psutil.Process().children(recursive=True)
    serving = [each for each in mine if any(word in " ".join(each.cmdline()) for word in ("ServeReplica", "haproxy"))]
    return sum(each.memory_info().rss for each in serving)
