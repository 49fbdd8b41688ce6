from __future__ import annotations

import io

from raypipe.runtime.progress import Progress
from raypipe.spec.train import TrainSpec
from raypipe.spec.workers import ElasticWorkers
from raypipe.train.progress_lines import ProgressLines

STEP = {"event": "step", "epoch": 2, "step": 340, "loss": 0.412, "rows_per_s": 8100.0, "left_s": 108.0}


def _lines(stream: io.StringIO) -> list[str]:
    return [line.split("train", 1)[1].strip() for line in stream.getvalue().splitlines()]


def test_progress_lines_says_epoch_step_loss_rate_and_time_left() -> None:
    stream = io.StringIO()
    progress_lines = ProgressLines(Progress("r1", stream), TrainSpec(epochs=5))

    progress_lines.tell({"event": "start", "step": 0, "total_steps": 850, "num_workers": 1})
    progress_lines.tell(STEP)

    assert _lines(stream)[1] == "epoch 2/5  step 340/850  loss 0.412  8.1k rows/s  left 1m48s"


def test_progress_lines_says_where_the_rows_are_and_why() -> None:
    stream = io.StringIO()

    ProgressLines(Progress("r1", stream), TrainSpec()).tell(
        {"event": "rows", "text": "rows: train resident", "rows": {}}
    )

    assert _lines(stream) == ["rows: train resident"]


def test_progress_lines_after_a_lost_worker_says_how_many_steps_are_repeated() -> None:
    stream = io.StringIO()
    progress_lines = ProgressLines(Progress("r1", stream), TrainSpec(epochs=5))
    progress_lines.tell({"event": "start", "step": 0, "total_steps": 850, "num_workers": 1})
    progress_lines.tell(STEP)

    progress_lines.tell({"event": "start", "step": 300, "total_steps": 850, "num_workers": 1})

    assert progress_lines.attempts == 2
    assert _lines(stream)[-1] == "workers lost; attempt 2 starts from step 300, 40 steps repeated"


def test_progress_lines_of_a_resumed_run_says_where_it_goes_on() -> None:
    stream = io.StringIO()

    ProgressLines(Progress("r1", stream), TrainSpec()).tell(
        {"event": "start", "step": 300, "total_steps": 850, "num_workers": 1}
    )

    assert _lines(stream) == ["continues from step 300/850"]


def test_progress_lines_says_with_how_many_workers_an_elastic_training_goes_on() -> None:
    stream = io.StringIO()
    progress_lines = ProgressLines(
        Progress("r1", stream), TrainSpec(num_workers=ElasticWorkers(min=1, max=4), epochs=5)
    )
    start = {"event": "start", "step": 0, "total_steps": 850}

    progress_lines.tell({**start, "num_workers": 4})
    progress_lines.tell({"event": "step", "epoch": 1, "step": 340, "loss": 0.4, "rows_per_s": 8.0, "left_s": 9.0})
    progress_lines.tell({**start, "step": 300, "num_workers": 2})
    progress_lines.tell({"event": "step", "epoch": 2, "step": 400, "loss": 0.4, "rows_per_s": 8.0, "left_s": 9.0})
    progress_lines.tell({**start, "step": 400, "num_workers": 4})

    lines = [line.partition("train ")[2].strip() for line in stream.getvalue().splitlines() if "loss" not in line]
    assert lines == [
        "4 worker(s) ready of 4 at most, 850 steps",
        "workers lost; attempt 2 starts from step 300 with 2 worker(s), 40 steps repeated",
        "there is room for more: 4 workers (2 before) go on from step 400",
    ]
    assert progress_lines.num_workers == [4, 2, 4]
