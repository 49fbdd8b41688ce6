"""Which errors of workers end a training."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from ray.train import ControllerError, WorkerGroupError

from raypipe.errors import StoreError, UserCodeError, find_known
from raypipe.train.failures import explained
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
