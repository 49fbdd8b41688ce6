"""The log of a submitted job: which of its lines is the result, and which are passed on."""

from __future__ import annotations

import json

import pytest

from raypipe.cli.jobs import _Log

RUN = {"run": "r7f3", "stages": {}, "endpoint": None}
ERROR = {"error": {"kind": "GateError", "message": "accuracy 0.9", "hint": "", "exit_code": 3}}


@pytest.mark.parametrize("document", [RUN, ERROR])
def test_log_line_that_is_the_end_of_a_run_is_the_result(document: object, capsys: pytest.CaptureFixture[str]):
    log = _Log()
    log.line(json.dumps(document))
    assert log.result == document
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "line",
    [
        "12:04:31 r7f3 train  epoch 2/5",
        '{"step": 3, "loss": 0.41}',
        '{"run": 7, "loss": 0.41}',
        '{"error": "the model\'s own"}',
        '{"error": {"of": "the model"}}',
        "{not JSON}",
        "",
    ],
)
def test_log_line_that_is_anything_else_is_passed_on(line: str, capsys: pytest.CaptureFixture[str]):
    log = _Log()
    log.line(json.dumps(RUN))
    log.line(line)
    assert log.result == RUN
    assert capsys.readouterr().err == line + "\n"


def test_log_line_of_another_machine_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]):
    _Log().line("\x1b[36m(worker pid=7)\x1b[0m \x1b]0;title\x07\rerror: none")
    assert capsys.readouterr().err == "(worker pid=7) \\u001b]0;title\\u0007\\rerror: none\n"
