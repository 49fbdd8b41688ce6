"""A worker that trains no step."""

from __future__ import annotations

import threading
from typing import Any

from raypipe.train.watching import HUNG_EXIT_CODE, Watch, stack_of

WAIT_S = 20.0


class Ended:
    """What a Watch does instead of ending this process."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.events: list[dict[str, Any]] = []
        self.passed_on: list[dict[str, Any]] = []
        self.is_over = threading.Event()

    def end(self, code: int) -> None:
        self.codes.append(code)
        self.is_over.set()

    def watch(self, hung_after_s: float) -> Watch:
        return Watch(hung_after_s, 3, report=self.passed_on.append, tell=self.events.append, end=self.end)


def test_watch_ends_a_worker_that_reports_nothing_and_tells_where_it_stands() -> None:
    ended = Ended()
    watch = ended.watch(0.1)

    def hang_here() -> bool:
        return ended.is_over.wait(WAIT_S)

    with watch.watching():
        watch.report({"event": "step", "step": 12})
        assert hang_here()

    (event,) = ended.events
    assert ended.codes == [HUNG_EXIT_CODE]
    assert {name: event[name] for name in ("event", "rank", "step")} == {"event": "hung", "rank": 3, "step": 12}
    assert event["silent_s"] >= 0.1
    assert "hang_here < test_watching.py" in event["stack"]
    assert ended.passed_on == [{"event": "step", "step": 12}]


def test_watch_leaves_a_worker_alone_that_reports_in_time_or_is_done() -> None:
    ended = Ended()
    watch = ended.watch(0.6)
    with watch.watching():
        for step in range(8):
            watch.report({"event": "step", "step": step})
            threading.Event().wait(0.1)
    threading.Event().wait(0.7)
    assert not ended.codes and len(ended.passed_on) == 8


def test_stack_of_a_thread_that_is_gone_says_so() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert stack_of(thread.ident or 0) == "the thread has ended"
