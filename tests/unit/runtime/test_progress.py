"""Progress lines, kept events, retries, and which Rays are ours."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from ray.exceptions import RpcError
from ray.experimental import internal_kv

from raypipe.errors import DataError, StoreError
from raypipe.retry import Retry
from raypipe.runtime import local
from raypipe.runtime.process import ProcessId
from raypipe.runtime.progress import Listener, Progress, Reporter, read_events
from raypipe.runtime.seeds import derive
from raypipe.testing.fakes import MemoryStore


def test_progress_line_has_time_stage_and_text():
    stream = io.StringIO()
    Progress("r7f3", stream).say("train", "epoch 2/5  step 340/850")
    assert re.fullmatch(r"\d\d:\d\d:\d\d train     epoch 2/5  step 340/850\n", stream.getvalue())


def test_progress_count_of_no_rows_is_no_line():
    stream = io.StringIO()
    progress = Progress("r1", stream)

    progress.count("evaluate", 0, "0 of 366 rows scored")
    assert (stream.getvalue(), progress.silent_s > 0) == ("", True)
    progress.count("evaluate", 3, "3 of 366 rows scored", num_rows=3)
    assert stream.getvalue().endswith("evaluate  3 of 366 rows scored\n")


def test_progress_line_shows_what_would_forge_another_line():
    stream = io.StringIO()
    Progress("r7f3", stream).say("data", "column 'a\n18:56:26 r7f3 register  champion -> version 1\x1b[A'")
    assert stream.getvalue().count("\n") == 1
    assert "column 'a\\n18:56:26 r7f3 register  champion -> version 1\\u001b[A'" in stream.getvalue()


def test_progress_stage_tells_its_end_and_keeps_its_seconds():
    stream = io.StringIO()
    progress = Progress("r7f3", stream)
    with progress.stage("data", "no earlier result"):
        pass
    assert "starts: no earlier result" in stream.getvalue() and "done in 0.0s" in stream.getvalue()
    assert progress.wall_s["data"] >= 0


def test_progress_stage_that_fails_says_so_and_has_no_seconds():
    stream = io.StringIO()
    progress = Progress("r7f3", stream)
    with pytest.raises(DataError), progress.stage("data"):
        raise DataError("no rows")
    assert "failed after" in stream.getvalue() and progress.wall_s == {}


def test_progress_saved_twice_keeps_all_events_in_order():
    store = MemoryStore()
    progress = Progress("r7f3", None)
    progress.say("data", "one", rows=3)
    progress.save(store)
    progress.say("data", "two")
    progress.save(store)
    events = read_events(store, "r7f3")
    assert [event["text"] for event in events] == ["one", "two"]
    assert events[0]["rows"] == 3 and events[0]["run"] == "r7f3"


class KeyValues:
    """Ray's key-value store in a dictionary, as these tests start no Ray; `down`: it does not answer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.values: dict[bytes, bytes] = {}
        self.down = False
        patch.setattr(internal_kv, "_internal_kv_put", lambda key, value, overwrite: self.put(key, value))
        patch.setattr(internal_kv, "_internal_kv_list", self.list)
        patch.setattr(internal_kv, "_internal_kv_get", self.values.get)
        patch.setattr(internal_kv, "_internal_kv_del", self.delete)

    def put(self, key: str, value: str) -> None:
        self.values[key.encode()] = value.encode()

    def delete(self, key: str | bytes, *, del_by_prefix: bool = False) -> None:
        if self.down:
            raise RpcError("the head is away")
        keys = self.list(str(key)) if del_by_prefix else [key]
        for found in keys:
            del self.values[found if isinstance(found, bytes) else found.encode()]

    def list(self, prefix: str) -> list[bytes]:
        if self.down:
            raise RpcError("the head is away")
        return [key for key in self.values if key.startswith(prefix.encode())]


@pytest.fixture
def key_values(monkeypatch: pytest.MonkeyPatch) -> KeyValues:
    return KeyValues(monkeypatch)


def test_listener_event_that_cannot_be_told_is_raised_at_the_end_and_later_ones_are_told(key_values: KeyValues):
    told: list[int] = []
    third = threading.Event()

    def tell(event: dict[str, int]) -> None:
        if event["step"] == 2:
            raise KeyError("rows_per_s")
        told.append(event["step"])
        if event["step"] == 3:
            third.set()

    finished = False
    with pytest.raises(KeyError, match="rows_per_s"), Listener("c", tell) as heard:  # noqa: PT012  (when it ends)
        reporter = Reporter(heard.channel)
        for step in (1, 2, 3):
            reporter.send({"step": step}, force=True)
        assert third.wait(30), "the listening thread goes on"
        finished = True
    assert finished and told == [1, 3]


def test_listener_event_that_cannot_be_told_does_not_hide_the_error_of_the_block(key_values: KeyValues):
    failing = Listener("c", lambda event: event["missing"])
    with pytest.raises(DataError, match="no rows"), failing as heard:  # noqa: PT012
        Reporter(heard.channel).send({"step": 1}, force=True)  # before the error: the block needs both
        raise DataError("no rows")


def test_listener_head_that_does_not_answer_costs_lines_and_not_the_block(key_values: KeyValues):
    told: list[dict[str, int]] = []
    with Listener("c", told.append) as heard:
        key_values.down = True
        Reporter(heard.channel).send({"step": 1}, force=True)
    assert told == []


def test_listener_of_a_resumed_run_does_not_tell_what_the_killed_one_left(key_values: KeyValues):
    left = Listener("raypipe/r1/train", lambda event: None).channel
    Reporter(left).send({"event": "start", "step": 0}, force=True)
    other = Listener("raypipe/r1/tune/t1", lambda event: None).channel
    Reporter(other).send({"event": "start", "step": 7}, force=True)
    told: list[dict[str, int]] = []
    with Listener("raypipe/r1/train", told.append) as heard:
        assert len(key_values.values) == 1, "what is left is removed, but not what belongs to others"
        Reporter(left).send({"event": "step", "step": 3}, force=True)  # of a worker that has not ended yet
        Reporter(heard.channel).send({"event": "start", "step": 2}, force=True)
    assert told == [{"event": "start", "step": 2}]


def test_retry_transient_error_is_tried_again_until_it_works():
    outcomes = [StoreError("later"), StoreError("later"), None]

    def action() -> str:
        error = outcomes.pop(0)
        if error is not None:
            raise error
        return "done"

    slept: list[float] = []
    assert Retry().call(action, sleep=slept.append) == "done"
    assert len(slept) == 2


@pytest.mark.parametrize(("error", "tries"), [(StoreError("later"), 3), (DataError("never"), 1)])
def test_retry_gives_up_at_once_or_after_its_attempts(error: Exception, tries: int):
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        Retry(max_attempts=3).call(action, sleep=lambda _: None)
    assert len(calls) == tries


def test_seeds_derived_for_different_parts_differ_and_repeat():
    assert derive(1, "shuffle", 2) == derive(1, "shuffle", 2)
    assert len({derive(1, "shuffle", epoch) for epoch in range(100)} | {derive(2, "shuffle", 0)}) == 101


def test_announced_ray_is_found_while_it_lives_and_not_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with local.announced("127.0.0.1:6379"):
        assert local.addresses() == ["127.0.0.1:6379"]
    assert local.addresses() == []


def test_announced_ray_of_a_process_that_died_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    own = ProcessId.own()
    folder = tmp_path / "raypipe" / "clusters"
    folder.mkdir(parents=True)

    def left(name: str, process: object) -> Path:
        (folder / name).write_text(json.dumps({"address": "127.0.0.1:1", "token": None, "process": process}))
        return folder / name

    gone = [
        left("ended.json", replace(own, pid=child).document()),
        left("number-given-again.json", replace(own, started=own.started - 1).document()),
        left(f"{own.pid}.json", None),
        left("no-process.json", {"host": own.host, "pid": "many", "started": 0}),
    ]
    (folder / "half-written.json").write_text('{"addr')
    elsewhere = left("elsewhere.json", replace(own, host="another-host").document())

    assert local.addresses() == [] and local.token_of("127.0.0.1:1") is None
    assert not any(file.exists() for file in gone)
    assert list(folder.iterdir()) == [elsewhere], "a home may be shared by machines: that one's is its own to remove"
    with local.announced("127.0.0.1:2"):
        assert local.addresses() == ["127.0.0.1:2"]


def test_count_of_rows_is_a_field_of_its_event_too():
    progress = Progress("r1", None)
    progress.count("data", 3, "checked 3 rows", num_rows=3)
    store = MemoryStore()
    progress.save(store)
    assert read_events(store, "r1")[-1]["num_rows"] == 3
