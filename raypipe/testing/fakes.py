"""Fakes at our seams: a store in memory, a clock that only moves when told, a silent run context."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore as _Memory

from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.storage import Store
from raypipe.storage.objects import ObjectStore


class MemoryStore(ObjectStore):
    """A Store in this process's memory, with real conditional writes."""

    def __init__(self) -> None:
        super().__init__("memory:", _Memory())


class FakeClock:
    """Seconds that pass only by `advance`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def run_context(store: Store, *, run_id: str = "rtest", code_dir: Path | None = None, seed: int = 0) -> RunContext:
    """A context that prints nothing."""
    return RunContext(run_id=run_id, store=store, progress=Progress(run_id, stream=None), code_dir=code_dir, seed=seed)
