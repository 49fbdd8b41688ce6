"""What the side process of a replica runs: the replica's handlers and renderers, over messages (side_process.py)."""

from __future__ import annotations

import gc
import signal
import socket
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.data.transforms import FittedTransforms, State
from raypipe.errors import RaypipeError
from raypipe.model.predictions import Predictions
from raypipe.serve.encodings import decoded
from raypipe.serve.frames import Frames, beside
from raypipe.serve.protocols.base import Ask, Call, Handler, Later, Protocol, Renderer, Reply, Served


@dataclass(frozen=True)
class SetUp:
    """What a side process is told first.

    Attributes:
        transforms: of the model, as FittedTransforms.state() gives them.
        protocols: those whose handlers will be called.
    """

    served: Served
    transforms: tuple[State, ...]
    protocols: tuple[type[Protocol], ...]


@dataclass(frozen=True)
class Read:
    """Parse, check and transform a request.

    Attributes:
        handler: a method of a protocol.
    """

    handler: Handler
    call: Call


@dataclass(frozen=True)
class Write:
    """Write an answer."""

    render: Renderer
    predictions: Predictions


@dataclass(frozen=True)
class Failed:
    """The error that some work ended with."""

    error: Exception


class SideWork:
    """Does the work."""

    def __init__(self, set_up: SetUp) -> None:
        self._served = set_up.served
        self._transforms = FittedTransforms.from_state(set_up.transforms)

    def done(self, work: Read | Write) -> Any:
        """What ModelApp would have got by doing it itself: (Ask or Reply, features), or a Reply; or Failed."""
        try:
            return self._read(work) if isinstance(work, Read) else beside(work.render(work.predictions))
        except Exception as error:  # it goes on its way in the replica
            if not isinstance(error, RaypipeError):
                traceback.print_exc()  # which does not travel
            return Failed(error)

    def _read(self, work: Read) -> tuple[Ask | Reply, Any]:
        call, served = work.call, self._served
        if call.is_encoded:
            call.body = decoded(call.body, call.headers, served.spec.max_body_bytes)
            call.is_encoded = False
        asked = work.handler(call)
        if isinstance(asked, Reply):
            return beside(asked), None
        if isinstance(asked, Later):
            raise TypeError("what streams is read where the model is")
        features = self._transforms.apply(asked.columns, served.signature.inputs)
        return Ask({}, asked.num_rows, asked.render), np.ascontiguousarray(features)


def main(connection: socket.socket) -> None:
    """Work until the replica is gone."""
    protocols: dict[str, Protocol] = {}
    frames = Frames(connection, protocols)
    set_up: SetUp = frames.receive()
    protocols.update({kind.__name__: kind(set_up.served) for kind in set_up.protocols})
    work = SideWork(set_up)
    gc.collect()
    gc.freeze()
    gc.disable()  # millions of values are no garbage, and looking through them takes as long as parsing them
    frames.send(None)
    while True:
        answer(work, frames, frames.receive())
        gc.collect()


def answer(work: SideWork, frames: Frames, asked: Read | Write) -> None:
    """Do what is asked, and send what comes of it."""
    outcome = work.done(asked)
    try:
        frames.send(outcome)
    except OSError:
        raise
    except Exception as error:  # it cannot be pickled
        traceback.print_exc()
        shown = outcome.error if isinstance(outcome, Failed) else error
        frames.send(Failed(RuntimeError(f"{type(shown).__name__}: {shown}")))


def run(connection_fd: int) -> None:
    """`main`, as a process.

    Args:
        connection_fd: a socket to the replica.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; we end with the replica
    with suppress(EOFError, ConnectionError):  # the replica is gone
        main(socket.socket(fileno=connection_fd))
