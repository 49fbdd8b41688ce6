"""JSON that no client sends by mistake, to every path that reads it: refused in words, with little work."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest
from starlette.responses import Response

from raypipe.serve.app import ModelApp
from raypipe.testing.served import ask
from tests.unit.serve.hostile.refusals import checked, readers

pytestmark = pytest.mark.thorough

LONGEST_S = 0.1
"""Of one refusal."""


def number(text: str) -> bytes:
    return b'{"instances": [{"age": %s, "color": "red"}]}' % text.encode()


def many(count: int) -> str:
    """Names, with commas between."""
    return ",".join(map(str, range(count)))


DEEP = 100_000
JSON_BOMBS: dict[str, bytes] = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists, open": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep instances": b'{"instances": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "deep inputs": b'{"inputs": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "a key of a megabyte": b'{"' + b"k" * 2**20 + b'": 1}',
    "a name twice": b'{"instances": [{"age": 1, "color": "red", "age": 1}]}',
    "a name twice, blanks": b'{"instances": [1], "instances" \n: [{"age": 1, "color": "red"}]}',
    "a name twice, beside texts": b'{"instances": [{"color": "a\\":b", "age": 1, "age": 1}]}',
    "a name twice, escaped": b'{"instances": [{"age": 1, "color": "red", "\\u0061ge": 1}]}',
    "a name twice, deep": b'{"inputs": [{"parameters": {"a": 1, "a": 1}, "name": "age", "datatype": "FP64"}]}',
    "exponent": number("1e999999999"),
    "negative exponent, huge": number("-1e400"),
    "5000 digits": number("9" * 5000),
    "5000 decimals and an exponent": number("0." + "9" * 5000 + "e400"),
    "NaN": number("NaN"),
    "Infinity": number("Infinity"),
    "-Infinity": number("-Infinity"),
    "plus": number("+1"),
    "leading zero": number("01"),
    "hexadecimal": number("0x10"),
    "half an exponent": number("1e"),
    "underscore": number("1_0"),
    "text for a number": number('"33"'),
    "object for a number": number('{"$numberLong": "1"}'),
    "lone surrogate": b'{"instances": [{"age": 1, "color": "\\ud800"}]}',
    "lone surrogate as a key": b'{"\\udfff": 1}',
    "surrogate in UTF-8": b'{"instances": [{"age": 1, "color": "\xed\xa0\x80"}]}',
    "no UTF-8": b'{"instances": "\xff\xfe"}',
    "overlong UTF-8": b'{"instances": "\xc0\xaf"}',
    "UTF-16": '{"instances": [1]}'.encode("utf-16"),
    "UTF-32": '{"instances": [1]}'.encode("utf-32"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b'{"instances"\x00: [1]}',
    "control character": b'{"instances": "\x01"}',
    "comments": b'{/* a */ "instances": [1]}',
    "single quotes": b"{'instances': [1]}",
    "trailing comma": b'{"instances": [1,]}',
    "two documents": b"{}{}",
    "nothing": b"",
    "blank": b" \n\t",
    "null": b"null",
    "a number": b"7",
    "a text": b'"instances"',
    "true": b"true",
    "prototype": b'{"__proto__": {"instances": [1]}, "constructor": 1}',
    "python's": b'{"__class__": "os.system", "py/object": "os.system", "!!python/object": 1}',
    "entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "YAML": b"!!python/object/apply:os.system ['id']",
}
LARGE_JSON_BOMBS: dict[str, Callable[[], bytes]] = {
    "a million keys": lambda: b"{" + b",".join(b'"%d":1' % i for i in range(1_000_000)) + b"}",
    "a row of a million keys": lambda: (
        b'{"instances": [{' + b",".join(b'"%d":1' % i for i in range(1_000_000)) + b"}]}"
    ),
    "a million objects": lambda: b'{"instances": [' + b'{"a":{}},' * 1_000_000 + b"{}]}",
    "two million lists": lambda: b'{"instances": [' + b"[]," * 2_000_000 + b"[]]}",
    "a million texts": lambda: b'{"instances": [' + b'"a",' * 1_000_000 + b'"a"]}',
}
"""Each made by its test: making all takes a second, of every process that collects tests."""


MANY, MANY_TEXTS = 300_000, 90_000
"""Names of a header, and texts that JSON may hold at all."""

NAMES_TWICE: dict[str, tuple[str, bytes, str]] = {
    "a header of one name": ("/invocations", b"age," * MANY + b"age\n", "text/csv"),
    "a header whose last name is there": ("/invocations", many(MANY).encode() + b",age,color,age\n", "text/csv"),
    "columns whose last name is there": (
        "/invocations",
        json.dumps({"dataframe_split": {"columns": [*many(MANY_TEXTS).split(","), "1"], "data": [[1]]}}).encode(),
        "application/json",
    ),
    "tensors of one name": (
        "/v2/models/people/infer",
        json.dumps({"inputs": [{"name": "age", "datatype": "FP64", "shape": [0], "data": []}] * 12_000}).encode(),
        "application/json",
    ),
}


@pytest.mark.parametrize("name", NAMES_TWICE)
def test_many_names_of_which_one_is_there_twice_are_refused_quickly(name: str, people: ModelApp):
    path, body, kind = NAMES_TWICE[name]
    answer, seconds = cpu_seconds(partial(ask, people, "POST", path, body, headers={"content-type": kind}))
    assert checked(answer, name) == 400
    assert b"twice" in answer.body or b"more than once" in answer.body, answer.body
    assert seconds <= 3 * LONGEST_S, seconds


def cpu_seconds(work: Callable[[], Response]) -> tuple[Response, float]:
    """An answer, and what it takes of a processor: the median of several where the first was slow. Large bodies are
    read in a thread, so all threads count; what other programs do does not."""
    taken: list[float] = []
    while True:
        start = time.process_time()
        answer = work()
        taken.append(time.process_time() - start)
        if taken[0] <= LONGEST_S or len(taken) == 5:
            return answer, statistics.median(taken)


@pytest.mark.parametrize("bomb", [*JSON_BOMBS, *LARGE_JSON_BOMBS])
def test_hostile_json_is_refused_everywhere_quickly(bomb: str, app: ModelApp):
    routes = readers(app)
    assert len(routes) >= 4
    body = LARGE_JSON_BOMBS[bomb]() if bomb in LARGE_JSON_BOMBS else JSON_BOMBS[bomb]
    for route in routes:
        answer, seconds = cpu_seconds(partial(ask, app, route.method, route.path, body))
        told = (bomb, route.path, seconds, bytes(answer.body)[:200])
        assert checked(answer, told) in (400, 413, 422), told
        assert seconds <= LONGEST_S, told
    assert checked(ask(app, "GET", "/healthz"), "health") == 200
