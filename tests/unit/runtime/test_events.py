"""Events kept with a run: parts that are written once, whatever the store or the driver does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raypipe.errors import StoreError
from raypipe.runtime.progress import Progress, read_events
from raypipe.storage import layout, open_store
from raypipe.testing.fakes import MemoryStore


class StoreThatIsDown(MemoryStore):
    """Takes no new object while `down`."""

    down = True

    def write_if_absent(self, key: str, data: bytes) -> None:
        if self.down:
            raise StoreError("S3 did not answer")
        super().write_if_absent(key, data)


def test_events_a_store_did_not_take_are_kept_with_those_after_them():
    store = StoreThatIsDown()
    progress = Progress("r7f3", None)
    progress.say("data", "one")
    assert not progress.offer(store) and read_events(store, "r7f3") == []
    store.down = False
    progress.say("data", "two")
    assert progress.offer(store)
    assert [event["text"] for event in read_events(store, "r7f3")] == ["one", "two"]


def test_events_of_a_store_that_stays_down_are_in_a_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = io.StringIO()
    progress = Progress("r7f3", stream)
    with progress.kept(StoreThatIsDown()):
        progress.say("train", "epoch 1/5")
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["text"] == "epoch 1/5"
    assert f"the store took no more events; the last are in {file}" in stream.getvalue()


def test_events_without_any_place_to_keep_them_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    stream = io.StringIO()
    progress = Progress("r7f3", stream)
    with progress.kept(StoreThatIsDown()):
        progress.say("train", "epoch 1/5")
    assert "no local file can be written" in stream.getvalue()


def test_events_of_a_driver_that_is_killed_are_in_the_store(tmp_path: Path):
    script = """
import sys
from raypipe.runtime.progress import Progress, read_events
from raypipe.storage import open_store
store = open_store(sys.argv[1])
progress = Progress("r7f3", None)
with progress.kept(store, every_s=0.01):
    progress.say("train", "epoch 1/5")
    while not read_events(store, "r7f3"):
        pass
    print("kept", flush=True)
    sys.stdin.read()
"""
    words = [sys.executable, "-c", script, str(tmp_path)]
    driver = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "kept\n"
    driver.kill()
    driver.communicate()
    assert [event["text"] for event in read_events(open_store(str(tmp_path)), "r7f3")] == ["epoch 1/5"]


def test_two_drivers_of_one_run_do_not_overwrite_each_others_events():
    store = MemoryStore()
    writers = [Progress("r7f3", None) for _ in range(4)]

    def write(progress: Progress, which: int) -> None:
        for count in range(25):
            progress.say("data", f"{which}:{count}")
            progress.save(store)

    threads = [threading.Thread(target=write, args=(progress, which)) for which, progress in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [event["text"] for event in read_events(store, "r7f3")]
    for which in range(4):
        own = [text for text in texts if text.startswith(f"{which}:")]
        assert own == [f"{which}:{count}" for count in range(25)], "all of them, each once, in order"


def test_each_save_writes_only_what_is_new():
    store = MemoryStore()
    progress = Progress("r7f3", None)
    for count in range(3):
        progress.say("data", str(count))
        progress.save(store)
    sizes = [info.size_bytes for info in store.list(layout.events("r7f3"))]
    assert len(sizes) == 3 and max(sizes) < 2 * min(sizes)
