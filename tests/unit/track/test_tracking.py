"""Trackers beside a run: what they are told, where it arrives, and that none of them can hold a run up or fail it."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raypipe.errors import SpecError
from raypipe.runtime.progress import Progress
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import MemoryStore
from raypipe.track import tracking
from raypipe.track.events import Registered, Scalars, parse
from raypipe.track.tracking import About, check_trackers, tracked
from tests.conftest import pick_ports

pytestmark = pytest.mark.thorough

if TYPE_CHECKING:  # both packages are slow to import, and only the process that runs these tests needs them
    from mlflow.tracking import MlflowClient

ASKED = {f"train.field_{n}": n for n in range(150)}


def about(store: Store) -> About:
    return About(pipeline="digits", run_id="rone", store=store, asked=ASKED)


def tell(progress: Progress) -> None:
    """A small run's events, as its stages tell them."""
    progress.update("train", "", event="step", step=5, epoch=1, loss=2.5, rows_per_s=100.0, left_s=9.0)
    progress.update("train", "", event="epoch", step=10, epoch=1, metrics={"train_loss": 1.5, "val_loss": float("nan")})
    progress.say("evaluate", "", rows=8, metrics={"accuracy": 0.75})
    progress.say("register", "", model="digits", version=3)


def test_event_says_its_finite_figures_and_no_others():
    base = {"time": 7.5, "run": "r", "text": "x"}
    epoch = {**base, "stage": "train", "step": 10, "metrics": {"val_loss": 0.5, "bad": float("inf"), "flag": True}}
    assert parse(epoch) == Scalars(7.5, "train", 10, {"val_loss": 0.5})
    trial = {**base, "stage": "tune", "trial": "t1", "epoch": 2, "metrics": {"val_accuracy": 0.5}}
    assert parse(trial) == Scalars(7.5, "tune", 2, {"val_accuracy": 0.5}, "t1")
    assert parse({**base, "stage": "register", "model": "m", "version": 2}) == Registered("m", 2)
    for other in ({"stage": "data", "rows": 5}, {"stage": "train"}, {"stage": "data", "metrics": {"x": 1.0}}):
        assert parse({**base, **other}) is None


def scalars_in(data: bytes) -> dict[tuple[str, int], float]:
    """(tag, step) -> value, out of an event file: length, its checksum, an Event, its checksum, and again."""
    from tensorboardX.proto import event_pb2

    found: dict[tuple[str, int], float] = {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])  # pyright: ignore[reportAttributeAccessIssue]
        found.update({(v.tag, event.step): v.simple_value for v in event.summary.value if v.HasField("simple_value")})
        data = data[16 + length :]
    return found


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_tensorboard_files_lie_below_the_run_in_any_store(kind: str, tmp_path: Path):
    store: Store = LocalFolder(str(tmp_path)) if kind == "folder" else MemoryStore()
    progress = Progress("rone", None)
    with tracked(["tensorboard"], about(store), progress):
        tell(progress)
    (file,) = [info.key for info in store.list("runs/rone/tensorboard")]
    assert "tfevents" in file
    assert scalars_in(store.read(file)) == {
        ("train/loss", 5): 2.5,
        ("train/rows_per_s", 5): 100.0,
        ("train/train_loss", 10): 1.5,
        ("evaluate/accuracy", 10): 0.75,
    }


@pytest.fixture
def mlflow_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())


def test_mlflow_has_fields_figures_version_and_outcome_of_each_run(mlflow_files: MlflowClient):
    progress = Progress("rone", None)
    with tracked(["mlflow"], about(MemoryStore()), progress):
        tell(progress)
    with pytest.raises(KeyError), tracked(["mlflow"], about(MemoryStore()), Progress("rone", None)):
        raise KeyError("the run failed")
    experiment = mlflow_files.get_experiment_by_name("digits")
    assert experiment is not None
    failed, done = mlflow_files.search_runs([experiment.experiment_id])
    assert (done.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert done.info.run_name == "rone" and done.data.tags["raypipe.model"] == "digits@3"
    assert done.data.params == {name: str(value) for name, value in ASKED.items()}
    assert done.data.metrics == {
        "train/loss": 2.5,
        "train/rows_per_s": 100.0,
        "train/train_loss": 1.5,
        "evaluate/accuracy": 0.75,
    }
    (loss,) = mlflow_files.get_metric_history(done.info.run_id, "train/train_loss")
    assert loss.step == 10


def said(progress: Progress) -> list[str]:
    return [event["text"] for event in progress._events if event["stage"] == "track"]


def test_mlflow_whose_server_is_away_is_told_once_and_dropped(monkeypatch: pytest.MonkeyPatch):
    (port,) = pick_ports(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    progress = Progress("rone", None)
    with tracked(["mlflow"], about(MemoryStore()), progress):
        tell(progress)
    (told,) = said(progress)
    assert told.startswith("mlflow takes no figures of this run any more: ") and str(port) in told
    assert progress.listeners == []


class Slow:
    """A tracker that hangs."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def take(self, told: Any) -> None:
        self.over.wait()

    def close(self, *, failed: bool) -> None: ...


class Breaks(Slow):
    """A tracker that takes one thing."""

    taken = 0

    def take(self, told: Any) -> None:
        if self.taken:
            raise OSError(f"disk full at https://me:secret@host/{'x' * 1000}\x1b[2J")
        self.taken += 1


def test_tracker_that_hangs_holds_no_run_up(monkeypatch: pytest.MonkeyPatch):
    slow, progress = Slow(), Progress("rone", None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda about: slow)
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 0.2)
    start = time.monotonic()
    with tracked(["tensorboard"], about(MemoryStore()), progress):
        tell(progress)
        assert time.monotonic() - start < 5, "whoever tells waits for nobody"
    assert said(progress) == ["tensorboard did not take its last figures within 0.2 s"]
    slow.over.set()


def test_tracker_that_breaks_is_told_once_without_secrets_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, mlflow_files: MlflowClient
):
    breaks, progress = Breaks(), Progress("rone", None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda about: breaks)
    with tracked(["tensorboard", "mlflow"], about(MemoryStore()), progress):
        tell(progress)
    (told,) = said(progress)
    assert "disk full" in told and "secret" not in told and "\x1b" not in told and len(told) < 400
    assert len(mlflow_files.search_experiments()) == 2, "the default one, and ours"


def test_mlflow_without_an_address_or_with_a_password_in_it_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    check_trackers(["tensorboard"])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_URI is not set"):
        check_trackers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host")
    with pytest.raises(SpecError) as refused:
        check_trackers(["mlflow"])
    assert "secret" not in str(refused.value)
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="not installed") as missing:
        check_trackers(["mlflow"])
    assert "raypipe[mlflow]" in missing.value.hint
