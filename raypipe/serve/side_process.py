"""A process beside a replica, for what Python takes long for: large bodies that are no bare arrays, large answers.

orjson, struct and lists hold Python's lock: 12 ms a MiB of JSON to parse alone. In a thread that holds up every other
request; here it holds up nobody. The same handlers and renderers run there, so answers and refusals are the same.

The process starts with the first such work (about half a second), and ends with the replica. It has some 40 MB of its
own, without torch or Ray.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from raypipe.data.transforms import State
from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.frames import Frames, beside
from raypipe.serve.protocols.base import Ask, Call, Handler, Protocol, Renderer, Reply, Served
from raypipe.serve.side_work import Failed, Read, SetUp, Write
from raypipe.serve.worker_thread import WorkerThread

SILENT_S = 60.0
"""A process that is silent for longer is ended. It starts in a second, and the largest work takes a few."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Libraries would start some for each core, which have nothing to do there."""


class SideProcess:
    """Reads requests and writes answers, one at a time.

    Args:
        transforms: of the model, as FittedTransforms.state() gives them.
        protocols: whose handlers and renderers it may be given.
    """

    def __init__(self, served: Served, transforms: tuple[State, ...], protocols: Iterable[Protocol]) -> None:
        self._protocols = {type(protocol).__name__: protocol for protocol in protocols}
        self._set_up = SetUp(replace(served, writer=None), transforms, tuple(map(type, self._protocols.values())))
        self._thread = WorkerThread("raypipe-side")  # waits for the process
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None while none runs."""
        return self._child.pid if self._child is not None else None

    async def read(self, handler: Handler, call: Call) -> tuple[Ask | Reply, Any]:
        """Parse, check and transform.

        Args:
            handler: a method of one of the protocols.
        Returns:
            What the handler gives, without its columns, and the features [B, *feature_shape] where it asks the model.
        Raises:
            RequestError, DataError: what handler and transforms raise; 503: the process ended over it.
        """
        return await self._done(Read(handler, beside(call)))

    async def write(self, render: Renderer, predictions: Predictions) -> Reply:
        """The answer that `render` writes; see `read`.

        Args:
            render: as an Ask has it.
        """
        return await self._done(Write(render, predictions))

    async def _done(self, work: Read | Write) -> Any:
        outcome = await self._thread.run(self._ask, work)
        if not isinstance(outcome, Failed):
            return outcome
        try:
            raise outcome.error
        finally:
            del outcome, work  # the error knows this frame: the body would stay until garbage is collected

    def _ask(self, work: Read | Write) -> Any:
        try:
            if self._child is None:
                self._child = _Child(self._set_up, self._protocols)
            self._child.frames.send(work)
            return self._child.frames.receive()
        except BaseException as error:
            if self._child is not None:  # who knows where in a message it is
                self._child.end()
                self._child = None
            if not isinstance(error, EOFError | OSError):  # e.g. the kernel ended it, for its memory
                raise
            what = "reads large bodies" if isinstance(work, Read) else "writes large answers"
            refusal = RequestError(
                f"the process that {what} here ended, or did not answer",
                "send fewer rows per request, or ask again after the seconds that Retry-After says",
                status=503,
                headers={"retry-after": "1"},
            )
            return Failed(refusal)


class _Child:
    """The running process, ready for work.

    Raises:
        EOFError, OSError: it did not start.
    """

    def __init__(self, set_up: SetUp, protocols: dict[str, Protocol]) -> None:
        ours, theirs = socket.socketpair()
        limit = struct.pack("ll", int(SILENT_S), 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, limit)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **dict.fromkeys(THREADS, "1")}
        # not -m: what is sent would be of the module __main__ there
        words = [sys.executable, "-c", f"from raypipe.serve.side_work import run; run({theirs.fileno()})"]
        with theirs, ExitStack() as unless_started:
            unless_started.callback(ours.close)
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=env)
            unless_started.pop_all()
        self.pid = process.pid
        self.end = weakref.finalize(self, _end, ours, process)
        self.frames = Frames(ours, protocols)
        self.frames.send(set_up)
        self.frames.receive()


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()
