"""Our own error is found inside what Ray and Python wrap around it."""

from __future__ import annotations

import json

import pytest
from ray.exceptions import RayTaskError, WorkerCrashedError

from raypipe.errors import DataError, RaypipeError, StoreError, causes, did_you_mean, find_known, one_line


def as_ray_raises_it(cause: Exception) -> Exception:
    """What `ray.get` raises in the driver when a task raised `cause`."""
    return RayTaskError("f", "Traceback", cause, proctitle="ray::f", pid=1, ip="127.0.0.1").as_instanceof_cause()


class Failed(Exception):
    """Like Ray Train's error about a group of workers."""

    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        self.worker_failures = worker_failures


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def raised_while_handling(inner: Exception, outer: Exception, *, hidden: bool) -> Exception:
    try:
        try:
            raise inner
        except Exception:
            outer.__suppress_context__ = hidden  # what `from None` sets
            raise outer  # noqa: B904  (what is tested is the chain Python makes by itself)
    except Exception as error:
        return error


def test_known_error_of_a_task_is_found_with_its_message_and_hint():
    wrapped = as_ray_raises_it(DataError("bad rows", "fix them"))
    assert isinstance(wrapped, RaypipeError)  # yet without a message of its own
    found = find_known(wrapped)
    assert type(found) is DataError
    assert (found.message, found.hint) == ("bad rows", "fix them")


def test_known_error_chained_by_python_below_a_task_is_found():
    error = chained(RuntimeError("a task failed"), as_ray_raises_it(DataError("bad rows")))
    assert str(find_known(error)) == "bad rows"


def test_known_error_of_any_worker_is_found():
    failed = Failed({1: as_ray_raises_it(StoreError("no answer")), 0: WorkerCrashedError()})
    assert str(find_known(chained(RuntimeError("train failed"), failed))) == "no answer"


def test_known_error_that_was_being_handled_is_found_unless_it_was_hidden():
    assert str(find_known(raised_while_handling(DataError("bad rows"), OSError("undo"), hidden=False))) == "bad rows"
    assert find_known(raised_while_handling(DataError("bad rows"), OSError("undo"), hidden=True)) is None


def test_known_error_wrapped_is_preferred_to_one_being_handled():
    error = raised_while_handling(DataError("before"), chained(OSError("now"), StoreError("why")), hidden=False)
    assert str(find_known(error)) == "why"


def test_errors_of_others_are_not_known():
    assert find_known(None) is None
    assert find_known(as_ray_raises_it(ValueError("theirs"))) is None


def test_causes_are_outermost_first_and_end_in_a_circle_too():
    inner = ValueError("theirs")
    outer = as_ray_raises_it(inner)
    assert list(causes(outer)) == [outer, inner]
    inner.__cause__ = outer
    assert list(causes(outer)) == [outer, inner]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\u001b[2J"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b1m\x7f", "\\u009b1m\\u007f"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\udcff", "\\udcff"),
        ("größe 長さ\u3000✓", "größe 長さ\u3000✓"),
        ("", ""),
    ],
)
def test_one_line_shows_what_would_drive_a_terminal_and_leaves_the_rest(text: str, shown: str):
    assert one_line(text) == shown


def test_one_line_leaves_a_json_document_the_same_document():
    value = {"a": "".join(chr(code) for code in (*range(0x300), 0x200B, 0x2028, 0xE0001))}
    assert json.loads(one_line(json.dumps(value, ensure_ascii=False))) == value


def test_word_is_compared_with_some_of_many_names():
    names = (f"recording_{number:07}.wav" for number in range(10**6))
    assert did_you_mean("recording_000012.wav", names).startswith(", did you mean 'recording_00")
    assert next(names) < "recording_0100000.wav"
