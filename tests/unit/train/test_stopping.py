"""Which errors of workers end a training."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from ray.train import ControllerError, WorkerGroupError

from raypipe.errors import PreemptedError, StoreError, TrainingError, UserCodeError, find_known
from raypipe.train.failures import explained, hung, is_out_of_memory, is_preempted, lasting, num_oom_kills
from raypipe.train.stopping import StopAtKnownError
from tests.unit.train.orders import order

OWN = UserCodeError("the model failed in training step 3", "correct the code")


def test_stopping_an_error_that_would_come_again_ends_the_training_with_its_words():
    with pytest.raises(ControllerError) as caught:
        StopAtKnownError().after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: OWN})

    known = find_known(caught.value)
    assert known is not None and (type(known), known.args) == (UserCodeError, OWN.args)


@pytest.mark.parametrize("passing", [StoreError("no answer"), RuntimeError("Connection closed by peer")], ids=repr)
def test_stopping_an_error_that_may_pass_leaves_the_next_attempt_to_ray(passing: Exception):
    StopAtKnownError().after_exception(None, {0: passing})
    assert not isinstance(find_known(WorkerGroupError("lost", {0: passing})), UserCodeError)


GONE = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711")
OTHER = ValueError("own code")
LATER = StoreError("the store does not answer")


@pytest.mark.parametrize("errors", list(permutations([GONE, OTHER, OWN, LATER])), ids=lambda errors: repr(errors)[:60])
def test_explained_own_error_wins_over_that_of_a_lost_peer_whatever_its_rank(
    errors: tuple[Exception, ...], tmp_path: Path
) -> None:
    training = order(tmp_path, "r1", {"num_workers": 4})

    def told(*left_out: Exception) -> Exception:
        left = [error for error in errors if error not in left_out]
        return explained(WorkerGroupError("lost", dict(enumerate(left))), training)

    assert told() == OWN
    assert told(OWN) == LATER
    assert "failed: ValueError: own code" in str(told(OWN, LATER))
    assert "Connection closed by peer" in str(told(OWN, LATER, OTHER))


RAYS_WORDS_ON_ANY_DEATH = (
    "The actor died unexpectedly before finishing this task. Some common causes include: (1) the process was killed by "
    "the OOM killer due to high memory usage, (2) ray stop --force was called"
)


class OutOfMemoryError(Exception):
    """As Ray's, and torch's."""


@pytest.mark.parametrize(
    ("error", "oom_kills", "who"),
    [
        (OutOfMemoryError("killed"), 0, "Ray's memory monitor ended it"),
        (RuntimeError("1 worker(s) were killed due to the node running low on memory."), 0, "Ray's memory monitor"),
        (RuntimeError(RAYS_WORDS_ON_ANY_DEATH), 1, "the kernel killed it"),
    ],
)
def test_explained_out_of_memory_names_it_and_the_rows_a_worker_tried(
    error: Exception, oom_kills: int, who: str, tmp_path: Path
) -> None:
    training = order(tmp_path, "r1", {"num_workers": 2, "global_batch_size": 64})

    told = explained(WorkerGroupError("lost", {0: GONE, 1: error}), training, oom_kills=oom_kills)

    assert f"worker 1 of 2 was out of memory (OOM; {who}" in told.message
    assert "at 32 rows a step on each worker (train.global_batch_size=64)" in told.message
    assert "lower train.global_batch_size" in told.hint and "--resume r1" in told.hint


def test_explained_death_of_which_ray_says_that_memory_may_be_the_cause_is_none(tmp_path: Path) -> None:
    assert not is_out_of_memory(RuntimeError(RAYS_WORDS_ON_ANY_DEATH))


@pytest.mark.parametrize(("text", "num"), [("pgfault 9\noom_kill 3\n", 3), ("pgfault 9\n", 0), ("what?", 0), (None, 0)])
def test_kills_for_want_of_memory_are_read_from_the_kernel_where_it_tells(
    text: str | None, num: int, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "vmstat").write_text(text)
    assert num_oom_kills(tmp_path / "vmstat") == num


def test_preempted_workers_are_no_failure_and_may_be_started_again() -> None:
    error = PreemptedError("the machine is taken away")
    died = RuntimeError("died")
    died.preempted = True  # type: ignore[attr-defined]
    assert is_preempted({0: GONE, 1: error}) and is_preempted({0: died})
    assert not is_preempted({0: GONE, 1: OTHER})
    assert lasting({0: error}) is None


def test_hung_group_is_told_with_where_each_worker_stood() -> None:
    told = [
        {"rank": 0, "silent_s": 61.2, "step": 12, "stack": "loop.py:80 train_step"},
        {"rank": 1, "silent_s": 62.0, "step": 11, "stack": "model.py:12 forward"},
    ]
    error = hung(told, TrainingError("train: worker 0 of 2 failed: ActorDiedError", "resume"))
    assert error.message == (
        "train: no step for 62 s after step 12 (train.hung_after_s), and the workers were ended. "
        "worker 0: loop.py:80 train_step; worker 1: model.py:12 forward"
    )
    assert error.hint == "resume"
