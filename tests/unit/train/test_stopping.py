"""Which errors of workers end a training."""

from __future__ import annotations

import pytest
from ray.train import ControllerError, WorkerGroupError

from raypipe.errors import StoreError, UserCodeError, find_known
from raypipe.train.stopping import StopAtKnownError

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
