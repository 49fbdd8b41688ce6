"""RunContext: what every stage is handed beside its spec and records."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypipe.runtime.progress import Progress
from raypipe.storage import Store


def new_run_id() -> str:
    """A short id, unique in practice: r and 6 base-32 characters."""
    return "r" + "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(6))


@dataclass(frozen=True)
class RunContext:
    """One execution of a spec.

    Attributes:
        run_id: names its folder under runs/.
        store: where everything it leaves behind goes.
        progress: where it tells what it does.
        name: the pipeline's name; part of every Ray name, so that a dashboard reads like the log.
        seed: the run's one seed; see runtime/seeds.py.
        fresh: stages of this run begin anew, whatever an earlier attempt at them kept to go on from.
        code_dir: folder that `model.kind: import` paths start from.
        workers: that began before the stage they train in, where any did (train.actors.Group); one stays for scoring.
        clock: seconds since the epoch; replaceable in tests.
    """

    run_id: str
    store: Store
    progress: Progress
    name: str = "pipeline"
    seed: int = 0
    fresh: bool = False
    code_dir: Path | None = None
    workers: Any = None
    clock: Callable[[], float] = field(default=time.time)
