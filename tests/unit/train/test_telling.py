from __future__ import annotations

import io

from raypipe.runtime.progress import Progress
from raypipe.spec.train import TrainSpec
from raypipe.train.telling import Teller

STEP = {"event": "step", "epoch": 2, "step": 340, "loss": 0.412, "rows_per_s": 8100.0, "left_s": 108.0}


def _lines(stream: io.StringIO) -> list[str]:
    return [line.split("train", 1)[1].strip() for line in stream.getvalue().splitlines()]


def test_teller_says_epoch_step_loss_rate_and_time_left() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), TrainSpec(epochs=5))

    teller.tell({"event": "start", "step": 0, "total_steps": 850})
    teller.tell(STEP)

    assert _lines(stream)[1] == "epoch 2/5  step 340/850  loss 0.412  8.1k rows/s  left 1m48s"


def test_teller_says_where_the_rows_are_and_why() -> None:
    stream = io.StringIO()

    Teller(Progress("r1", stream), TrainSpec()).tell({"event": "rows", "text": "rows: train resident", "rows": {}})

    assert _lines(stream) == ["rows: train resident"]


def test_teller_after_a_lost_worker_says_how_many_steps_are_repeated() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), TrainSpec(epochs=5))
    teller.tell({"event": "start", "step": 0, "total_steps": 850})
    teller.tell(STEP)

    teller.tell({"event": "start", "step": 300, "total_steps": 850})

    assert teller.attempts == 2
    assert _lines(stream)[-1] == "workers lost; attempt 2 starts from step 300, 40 steps repeated"


def test_teller_of_a_resumed_run_says_where_it_goes_on() -> None:
    stream = io.StringIO()

    Teller(Progress("r1", stream), TrainSpec()).tell({"event": "start", "step": 300, "total_steps": 850})

    assert _lines(stream) == ["continues from step 300/850"]
