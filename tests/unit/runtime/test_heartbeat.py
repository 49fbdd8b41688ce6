"""A silent stage shows a sign of life; one that talks does not."""

from __future__ import annotations

import io
import threading

from raypipe.runtime.heartbeat import heartbeat
from raypipe.runtime.progress import Progress


def test_heartbeat_of_a_silent_stage_says_that_it_still_runs():
    screen, said = io.StringIO(), threading.Event()
    screen.write = lambda text: (said.set() if "still running" in text else None, len(text))[1]  # type: ignore[method-assign]
    with heartbeat(Progress("r1", screen), "data", quiet_s=0.01):
        assert said.wait(10)


def test_heartbeat_of_a_stage_that_talks_says_nothing():
    screen = io.StringIO()
    progress = Progress("r1", screen)
    with heartbeat(progress, "data", quiet_s=60):
        progress.say("data", "read 5 rows")
    assert "still running" not in screen.getvalue()
