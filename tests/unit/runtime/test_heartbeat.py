"""A silent stage shows a sign of life; one that talks does not."""

from __future__ import annotations

import io
import threading

from raypipe.runtime.heartbeat import heartbeat
from raypipe.runtime.progress import Progress


class Screen(io.StringIO):
    """`said` is set once a stage is said to be still running."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def write(self, text: str) -> int:
        if "still running" in text:
            self.said.set()
        return super().write(text)


def test_heartbeat_of_a_silent_stage_says_that_it_still_runs():
    screen = Screen()
    with heartbeat(Progress("r1", screen), "data", quiet_s=0.01):
        assert screen.said.wait(10)


def test_heartbeat_of_a_stage_that_talks_says_nothing():
    screen = io.StringIO()
    progress = Progress("r1", screen)
    with heartbeat(progress, "data", quiet_s=60):
        progress.say("data", "read 5 rows")
    assert "still running" not in screen.getvalue()
