"""A machine that is taken away: how a worker learns of it, and when it asks the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from raypipe.errors import PreemptedError
from raypipe.testing.fakes import FakeClock
from raypipe.train import preemption
from raypipe.train.preemption import NodeDrained, Notices, Preemption, TermSignal
from raypipe.train.rows import World


def test_term_signal_is_noted_instead_of_ending_the_process_and_only_within_the_block() -> None:
    told = TermSignal()
    before = signal.getsignal(signal.SIGTERM)
    with told.listening():
        assert not told.is_told()
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.is_told()
    assert signal.getsignal(signal.SIGTERM) is before


def test_leave_says_which_checkpoint_is_kept_and_may_be_tried_again() -> None:
    with pytest.raises(PreemptedError, match="the checkpoint of step 7 is kept") as caught:
        Preemption().leave(7)
    assert caught.value.transient


def test_node_drained_waits_to_be_ended_once_its_checkpoint_is_kept() -> None:
    slept: list[float] = []
    answers = [None, "info"]
    node = NodeDrained(lambda: answers.pop(0), slept.append)

    assert [node.is_told(), node.is_told()] == [False, True]
    with pytest.raises(PreemptedError):
        node.leave(7)
    assert slept == [preemption.END_S]


class Told(Preemption):
    """Notes at which steps it was asked; told from `from_step` on."""

    def __init__(self, step_now: Callable[[], int], from_step: int) -> None:
        self.asked: list[int] = []
        self._step_now, self._from_step = step_now, from_step

    def is_told(self) -> bool:
        self.asked.append(self._step_now())
        return self._step_now() >= self._from_step


@pytest.mark.parametrize(("step_s", "gap"), [(0.01, 100), (0.25, 4), (3.0, 1)])
def test_notices_ask_about_once_a_second_whatever_a_step_takes(step_s: float, gap: int) -> None:
    step, clock = 0, FakeClock()
    told = Told(lambda: step, from_step=10**9)
    notices = Notices(told, World(), clock)
    for step in range(1, 1000):
        clock.advance(step_s)
        assert not notices.came(step)
    later = [b - a for a, b in zip(told.asked, told.asked[1:], strict=False) if a > 300]
    assert set(later) == {gap}


def test_notices_tell_at_the_first_step_they_ask_at_after_the_notice() -> None:
    step, clock = 0, FakeClock()
    told = Told(lambda: step, from_step=500)
    notices = Notices(told, World(), clock)
    for step in range(1, 1000):
        clock.advance(0.1)
        if notices.came(step):
            break
    assert 500 <= step <= 510
