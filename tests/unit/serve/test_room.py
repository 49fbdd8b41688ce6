from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.serve import room
from raypipe.serve.room import with_rows_that_fit
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.served import ask, model_app, model_version
from tests.unit.serve.conftest import SMALL, table_in


@pytest.mark.parametrize(
    ("shape", "rows"), [((3, 224, 224), 445), ((50_000,), 1342), ((1000,), 10_000), ((), 10_000), ((0,), 10_000)]
)
def test_rows_of_a_request_are_bounded_by_the_numbers_they_become(shape: tuple[int, ...], rows: int):
    assert with_rows_that_fit(ServeSpec(), shape).max_request_rows == rows
    assert with_rows_that_fit(ServeSpec(max_request_rows=100), shape).max_request_rows == 100


def test_bodies_of_as_many_bytes_may_hold_as_many_numbers():
    assert with_rows_that_fit(ServeSpec(max_body_bytes=2**30), (3, 224, 224)).max_request_rows == 2**30 // 150_528


def test_replica_tells_and_keeps_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "MAX_FEATURES", 0)
    store = LocalFolder(str(tmp_path))
    spec = SMALL.model_copy(update={"max_request_rows": 10_000})
    app = model_app(store, model_version(store, table_in(store)), spec)  # four numbers a row, 4096 bytes a body
    assert json.loads(bytes(ask(app, "GET", "/metadata").body))["limits"]["rows"] == 1024
    answer = ask(app, "POST", "/predict", b'{"instances": [' + b"1," * 1024 + b"1]}")
    assert answer.status_code == 413 and b"1025 rows; at most 1024 are answered at once" in answer.body
