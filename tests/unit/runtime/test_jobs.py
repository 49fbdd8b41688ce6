"""Following a job over connections that break: Ray's own client against a dashboard that answers what it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from aiohttp import WSCloseCode, web
from ray.job_submission import JobSubmissionClient

from raypipe.errors import ClusterError
from raypipe.runtime import jobs
from raypipe.runtime.jobs import Job, follow

pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # Ray's client opens its stream so

LOG = "one\ntwo\nthree\nfour"
LINES = ["one", "two", "three", "four"]


@dataclass(frozen=True)
class Stream:
    """What one stream of the log does: tell its first characters, then close, break off, or stay silent."""

    num_chars: int
    then: str = "close"


class Dashboard:
    """Answers as Ray's dashboard does; the job ends with the last stream.

    Args:
        streams: one per time the log is asked for.
        then: what happens when all were used; `end`: the job has ended, `vanish`: nobody answers any more.
    """

    def __init__(self, streams: Sequence[Stream], then: str, exit_code: int) -> None:
        self._streams = list(streams)
        self._then = then
        self._exit_code = exit_code

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/j", self._info)
        app.router.add_get("/api/jobs/j/logs", self._logs)
        app.router.add_get("/api/jobs/j/logs/tail", self._tail)
        return app

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "c"})

    async def _info(self, request: web.Request) -> web.Response:
        if self._streams:
            return web.json_response({"type": "SUBMISSION", "entrypoint": "x", "status": "RUNNING"})
        if self._then == "vanish":
            assert request.transport is not None
            request.transport.abort()
        ended = {"status": "SUCCEEDED" if self._exit_code == 0 else "FAILED", "driver_exit_code": self._exit_code}
        return web.json_response({"type": "SUBMISSION", "entrypoint": "x", **ended})

    async def _logs(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": LOG})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        stream = self._streams.pop(0)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for start in range(0, stream.num_chars, 3):
            await socket.send_str(LOG[start : min(start + 3, stream.num_chars)])
        if stream.then == "break":
            assert request.transport is not None
            request.transport.abort()
        elif stream.then == "stay":
            await socket.receive()
        else:
            await socket.close(code=WSCloseCode.OK)
        return socket


@contextmanager
def dashboard(*streams: Stream, then: str = "end", exit_code: int = 0) -> Iterator[Job]:
    """A job on a cluster whose dashboard is this."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(Dashboard(streams, then, exit_code).app(), shutdown_timeout=1)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), loop).result(10)}"
        yield Job("j", address, JobSubmissionClient(address))
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "STATUS_POLL_S", 0.0)  # every test would wait for it


def followed(job: Job) -> tuple[int, list[str]]:
    lines: list[str] = []
    return follow(job, lines.append), lines


def test_log_of_a_job_is_told_line_by_line_with_its_exit_code():
    with dashboard(Stream(len(LOG)), exit_code=3) as job:
        assert followed(job) == (3, LINES)


@pytest.mark.parametrize("then", ["close", "break"])
def test_log_stream_that_ends_before_the_job_is_read_again_without_repeating(then: str):
    with dashboard(Stream(6, then), Stream(0, then), Stream(3, then), Stream(len(LOG))) as job:
        assert followed(job) == (0, LINES)


def test_log_stream_that_is_silent_for_too_long_is_opened_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "SILENCE_S", 0.5)  # instead of a minute
    with dashboard(Stream(6, "stay"), Stream(len(LOG))) as job:
        assert followed(job) == (0, LINES)


def test_lines_written_after_the_last_stream_closed_are_told():
    with dashboard(Stream(6)) as job:
        assert followed(job) == (0, LINES)


def test_cluster_that_is_lost_is_exit_4_and_says_that_the_job_goes_on():
    with dashboard(Stream(6, "break"), then="vanish") as job:
        lines: list[str] = []
        with pytest.raises(ClusterError, match=f"lost the cluster at {job.address}; job j goes on") as lost:
            follow(job, lines.append)
        assert lost.value.exit_code == 4
        assert lost.value.hint == f"ray job logs --address {job.address} --follow j"
        assert lines == ["one"]


def test_reader_of_the_log_that_left_is_not_taken_for_a_lost_cluster():
    def gone(line: str) -> None:
        raise BrokenPipeError

    with dashboard(Stream(len(LOG))) as job, pytest.raises(BrokenPipeError):
        follow(job, gone)
