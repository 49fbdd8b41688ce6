"""One event stream -> console lines, and events kept with the run.

The driver owns a Progress.  A worker process sends events through Ray's
key-value store with a Reporter; the driver's Listener picks them up.  That
costs no extra process, and a lost event costs a line on a screen.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, TextIO

from raypipe.errors import ObjectExists, StoreError, find_known, masked
from raypipe.runtime.screen import screen_of
from raypipe.storage import Store, layout

POLL_S = 0.1

KEEP_EVERY_S = 5.0
"""How much of a run's events a driver that dies may lose."""

MAX_ERROR_CHARS = 2000
"""Of the message that a failed stage keeps with its event."""


class Progress:
    """What happens in a run, told as it happens.

    Args:
        run_id: kept with every event.
        stream: where it is shown; None is silent. "stderr" is looked up now: whoever redirected it means this.
    """

    def __init__(self, run_id: str, stream: TextIO | Literal["stderr"] | None = "stderr") -> None:
        self.run_id = run_id
        self._screen = screen_of(sys.stderr if isinstance(stream, str) else stream)
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._said_at = time.monotonic()
        self.wall_s: dict[str, float] = {}
        """Wall seconds of each finished stage."""
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        """Who is handed each event, in the thread that tells it: takes no time, and raises nothing."""

    def say(self, stage: str, text: str, *, show: bool = True, **fields: Any) -> None:
        """One line for people and the same as one event for programs; `show=False` leaves the line out."""
        self._keep(stage, text, show, fields)
        if show:
            self._screen.line(stage, text)

    def update(
        self,
        stage: str,
        text: str,
        /,
        *,
        share: float | None = None,
        beside: str = "",
        show: bool = True,
        **fields: Any,
    ) -> None:
        """How far a stage is: an event as `say` keeps it, and news that the next one replaces.

        Args:
            share: of the stage's work that is done, 0 to 1; None where it is not known.
            beside: a few words that stay beside the bar of a terminal.
        """
        self._keep(stage, text, show, fields)
        if show:
            self._screen.update(stage, text, share, beside)

    def _keep(self, stage: str, text: str, show: bool, fields: dict[str, Any]) -> None:
        with self._lock:
            if show:
                self._said_at = time.monotonic()
            now = round(time.time(), 3)
            event = {"time": now, "run": self.run_id, "stage": stage, "text": text, **fields}
            self._events.append(event)
        for listener in tuple(self.listeners):
            listener(event)

    def count(self, stage: str, num_rows: int, text: str, /, **fields: Any) -> None:
        """How many rows are done so far. Nothing while none is: `0 rows` reads like a fault, and waiting is told by
        the heartbeat."""
        self.update(stage, text, show=num_rows > 0, **fields)

    @contextmanager
    def awaiting(self, stage: str, text: str) -> Iterator[None]:
        """Say what is waited for, and be seen to wait while the block runs."""
        with self._screen.live(stage):
            self.update(stage, text)
            yield

    @property
    def silent_s(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._said_at

    @contextmanager
    def stage(self, stage: str, why: str = "") -> Iterator[None]:
        """Time a stage; its end is told, its failure too."""
        start = time.monotonic()
        self.say(stage, f"starts: {why}" if why else "starts")
        try:
            with self._screen.live(stage):
                yield
        except BaseException as error:
            self.say(stage, f"failed after {time.monotonic() - start:.1f}s", failed=True, error=_told(error))
            raise
        self.wall_s[stage] = time.monotonic() - start
        self.say(stage, f"done in {self.wall_s[stage]:.1f}s", wall_s=round(self.wall_s[stage], 3))

    @contextmanager
    def kept(self, store: Store, every_s: float = KEEP_EVERY_S) -> Iterator[None]:
        """Keep events with the run while the block runs, so that a driver that dies loses `every_s` seconds of them.

        What a store did not take is offered again with what comes after it; what it has not taken when the block ends
        goes to a local file, which is named. No event ever fails a run.
        """
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(every_s):
                self.offer(store)

        thread = threading.Thread(target=keep, name="raypipe-events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if not self.offer(store):
                self._keep_locally()

    def save(self, store: Store) -> None:
        """Keep the events so far with the run, after those that are there.

        Raises:
            StoreError: the store did not take them; they are kept for the next call.
        """
        with self._saving:
            with self._lock:
                count = len(self._events)
                lines = _lines(self._events)
            if count:
                append_events(store, self.run_id, lines)
            with self._lock:
                del self._events[:count]

    def offer(self, store: Store) -> bool:
        """Save what there is; False where the store does not take it now."""
        try:
            self.save(store)
        except StoreError:
            return False
        return True

    def _keep_locally(self) -> None:
        with self._lock:
            lines = _lines(self._events)
            self._events.clear()
        try:
            with tempfile.NamedTemporaryFile(
                "wb", prefix=f"raypipe-{self.run_id}-", suffix=".jsonl", delete=False
            ) as file:
                file.write(lines)
        except OSError as error:
            self.say("events", f"the store took no more events, and no local file can be written: {error.strerror}")
        else:
            self.say("events", f"the store took no more events; the last are in {file.name}")


def append_events(store: Store, run_id: str, lines: bytes) -> None:
    """Write JSON lines as the next part of a run's events; two drivers of one run never overwrite each other.

    Raises:
        StoreError: the store did not take them.
    """
    number = 1 + max((_part_number(info.key) for info in store.list(layout.events(run_id))), default=0)
    while True:
        key = layout.events_part(run_id, number)
        try:
            store.write_if_absent(key, lines)
        except ObjectExists:
            # An answer that got lost on the way is tried again, and then this part is our own.
            if store.read(key) == lines:
                return
            number += 1
        else:
            return


def read_events(store: Store, run_id: str) -> list[dict[str, Any]]:
    """What happened in a run, in order, as far as it is kept."""
    keys = [info.key for info in store.list(layout.events(run_id))]
    return [event for key in keys for event in read_events_part(store, key)]


def read_events_part(store: Store, key: str) -> Iterator[dict[str, Any]]:
    """The events of one part; of a damaged line, that it is."""
    for number, line in enumerate(store.read(key).splitlines(), 1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            yield event
        else:
            yield {"text": f"line {number} of {store.uri}/{key} is damaged"}


def _told(error: BaseException) -> str:
    known = find_known(error)
    text = known.message if known is not None else f"{type(error).__name__}: {masked(str(error))}"
    return text[:MAX_ERROR_CHARS]


def _part_number(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".jsonl"))


def _lines(events: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(event, default=str) + "\n" for event in events).encode()


class Reporter:
    """Sends events from any process of the cluster to the driver's Listener.

    Args:
        channel: the Listener's.
        every_s: events between two that count are dropped (`force=True` always goes through).
    """

    def __init__(self, channel: str, every_s: float = 2.0) -> None:
        self._channel = channel
        self._every_s = every_s
        self._last = 0.0
        self._count = 0
        self._sender = f"{time.time_ns():x}"

    @property
    def due(self) -> bool:
        """Whether a `send` now would go through."""
        return time.monotonic() - self._last >= self._every_s

    def send(self, event: dict[str, Any], *, force: bool = False) -> None:
        from ray.experimental import internal_kv

        if not (force or self.due):
            return
        self._last = time.monotonic()
        self._count += 1
        key = f"{self._channel}/{self._sender}/{self._count:08d}"
        internal_kv._internal_kv_put(key, json.dumps(event), overwrite=True)


class Listener:
    """Hands events to `on_event`, in the driver, while the `with` block runs.

    Each has a channel of its own, below its name: what a driver that was killed left there, or its dying workers still
    send, is nobody's news.

    An event that `on_event` fails on stops neither the block nor the events after it; the first such error is raised
    when the block ends, unless the block failed itself.
    """

    def __init__(self, name: str, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self.channel = f"{name}/{secrets.token_hex(4)}"
        """For a Reporter."""
        self._on_event = on_event
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="raypipe-progress", daemon=True)

    def __enter__(self) -> Listener:
        from ray.exceptions import RayError
        from ray.experimental import internal_kv

        with suppress(RayError):
            internal_kv._internal_kv_del(f"{self._name}/", del_by_prefix=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._stop.set()
        self._thread.join()
        self._drain()
        if error is None and self._failure is not None:
            raise self._failure

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            self._drain()

    def _drain(self) -> None:
        for event in self._arrived():
            try:
                self._on_event(json.loads(event))
            except Exception as error:  # this thread has nobody to raise it to
                self._failure = self._failure or error

    def _arrived(self) -> Iterator[bytes]:
        from ray.exceptions import RayError
        from ray.experimental import internal_kv

        with suppress(RayError):  # a head that does not answer now costs lines; who works with it will tell
            for key in sorted(internal_kv._internal_kv_list(f"{self.channel}/") or []):
                value = internal_kv._internal_kv_get(key)
                internal_kv._internal_kv_del(key)
                if value is not None:
                    yield value
