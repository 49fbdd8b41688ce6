"""A sign of life while a stage is silent, with what the cluster has free: waiting must not look like a hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from raypipe.runtime.progress import Progress

QUIET_S = 15.0
"""Silence after which a stage is asked about."""


@contextmanager
def heartbeat(progress: Progress, stage: str, quiet_s: float = QUIET_S) -> Iterator[None]:
    """Say, after every `quiet_s` of silence inside the block, that the stage still runs and which CPUs are free."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(min(1.0, quiet_s)):
            if progress.silent_s >= quiet_s:
                progress.update(stage, f"still running{_room()}")

    thread = threading.Thread(target=watch, name=f"raypipe-heartbeat-{stage}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _room() -> str:
    import ray

    if not ray.is_initialized():
        return ""
    free, there = (amounts.get("CPU", 0.0) for amounts in (ray.available_resources(), ray.cluster_resources()))
    held = "" if free >= 1 else "; where other work holds them, this waits (raypipe status, ray status)"
    return f": {free:g} of {there:g} CPUs are free{held}"
