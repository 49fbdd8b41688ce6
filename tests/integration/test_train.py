"""train() on real workers: those started directly, and Ray Train's."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from raypipe.data.shards import load_rows
from raypipe.errors import ClusterError, TrainingError, UserCodeError
from raypipe.model.predictor import Predictor
from raypipe.runtime import notices
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.storage import layout, open_store
from raypipe.testing import faults
from raypipe.train import places
from raypipe.train.stage import train
from tests.integration import faulty

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

both_ways = pytest.mark.parametrize("trainer", ["auto", "ray_train"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the store and the network of `trained`."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(ray_cluster: object, folder: Path) -> dict[tuple[str, str], faulty.Trained]:
    """Two workers, either way, whole and with one killed."""
    return faulty.trained_either_way(folder, num_workers=2)


@pytest.mark.timeout(300)
@both_ways
def test_train_two_workers_leave_a_model_that_answers(
    folder: Path, trained: dict[tuple[str, str], faulty.Trained], trainer: str
) -> None:
    store = open_store(str(folder / "store"))
    result, events = trained[trainer, "whole"]

    assert (result.num_workers, result.num_steps, result.attempts) == (2, 14, 1)
    assert [entry.step for entry in result.history] == [7, 14]
    predictor = Predictor.load(store, result.artifact, code_dir=folder / "code")
    rows = faulty.dataset(store)
    columns = load_rows(store, rows, "val")
    labels = predictor.predict(columns.columns).labels()
    assert result.metrics["val_accuracy"] == (labels == columns.target).mean()
    assert faulty.starts(events) == [0]
    (told,) = [event for event in events if "trainer" in event]
    assert (told["trainer"], told["text"]) == {
        "auto": ("actors", "workers started directly: all are on this machine"),
        "ray_train": ("ray_train", "workers of Ray Train: train.trainer asks for it"),
    }[trainer]
    assert [event["metrics"] for event in events if event.get("event") == "epoch"] == [
        e.metrics for e in result.history
    ]
    checkpoints = store.list(layout.checkpoints(faulty.run_id_of(trainer, "whole")))
    assert {info.key.split("/")[-2] for info in checkpoints} == {"step-00000012", "step-00000014"}


@both_ways
def test_train_network_that_raises_on_one_worker_is_told_with_its_line_and_not_tried_again(
    tmp_path: Path, trainer: str
) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=[])
    store = open_store(str(tmp_path / "store"))
    spec = faulty.pipeline(code_dir, raises=3, max_failures=3, trainer=trainer)

    with pytest.raises(UserCodeError) as caught:
        faulty.run(spec, store, code_dir, "raises")
    assert re.fullmatch(
        r"the model failed in training step 2, worker 1 of 2: faulty_model\.py line \d+, in forward: "
        r"RuntimeError: the network does not feel like it",
        caught.value.message,
    )
    assert "--resume" not in caught.value.hint
    assert faulty.starts(faulty.events(store, "raises")) == [0], "one attempt"


@both_ways
def test_train_more_workers_than_fit_says_so_after_the_deadline(tmp_path: Path, trainer: str) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=[])
    store = open_store(str(tmp_path / "store"))
    spec = faulty.pipeline(code_dir, resources={"num_cpus": 64}, start_timeout_s=1, trainer=trainer)

    with pytest.raises(ClusterError, match=r"2 workers of \{'CPU': 64.0\} were not placed within 1s"):
        faulty.run(spec, store, code_dir, "toobig")


def test_train_elastic_waits_for_the_fewest_begins_with_what_fits_and_grows_where_an_epoch_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=["0 12 hold"])  # in the second epoch of the first attempt
    store = open_store(str(tmp_path / "store"))
    workers = {"min": 1, "max": 2, "grow_after_s": 0}
    spec = faulty.pipeline(code_dir, num_workers=workers, resources={"num_cpus": 1}, max_failures=0)
    others = [placement_group([{"CPU": cpus}]) for cpus in (1, 3)]  # all that there is
    assert all(each.wait(30) for each in others)
    assert _free_cpus(wanted=0.0) == 0.0
    progress = Progress("elastic", stream=None)
    monkeypatch.setattr(places, "TELL_AFTER_S", 0.2)

    def make_room(event: Mapping[str, Any]) -> None:
        if "waiting for room" in str(event.get("text")):
            remove_placement_group(others[0])
        elif event.get("event") == "start" and event["num_workers"] == 1:
            remove_placement_group(others[1])

    def post(name: str, room: str) -> None:
        notices_post(name, room)
        if room == "2":
            (code_dir / "go").touch()

    told: list[dict[str, Any]] = []
    progress.listeners += [lambda event: told.append(dict(event)), make_room]
    notices_post = notices.post
    monkeypatch.setattr(notices, "post", post)

    result = train(spec, faulty.dataset(store), RunContext("elastic", store, progress, spec.name, code_dir=code_dir))

    assert (result.workers_by_attempt, result.attempts, result.num_steps) == ((1, 2), 2, 24)
    assert faulty.starts(told) == [0, 16], "the first epoch's end at which there was room for more"
    waited = [event["text"] for event in told if "waiting" in str(event.get("text"))]
    assert len(waited) == 1 and waited[0].startswith(
        "waiting for room for 1 worker(s) (train.num_workers.min) of CPU 1 each; free now: CPU 0."
    )
    assert [event["text"] for event in told if event.get("event") == "start"] == [
        "1 worker(s) ready of 2 at most, 24 steps",
        "there is room for more: 2 workers (1 before) go on from step 16",
    ]


@pytest.mark.timeout(300)
def test_train_either_way_and_with_a_worker_killed_gives_the_same_bits(
    trained: dict[tuple[str, str], faulty.Trained],
) -> None:
    digests = faulty.digests_of(trained)
    assert len(digests) == 4 and len(set(digests.values())) == 1, digests


def test_train_workers_lost_more_often_than_allowed_is_told_and_frees_what_they_held(tmp_path: Path) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=["0 2", "1 2"])
    store = open_store(str(tmp_path / "store"))

    with pytest.raises(TrainingError, match=r"train: worker [01] of 2 failed: ") as caught:
        faulty.run(faulty.pipeline(code_dir, max_failures=1), store, code_dir, "lost")

    assert "--resume lost" in caught.value.hint
    assert faulty.starts(faulty.events(store, "lost")) == [0, 0]
    assert [group for group in placement_group_table().values() if group["state"] != "REMOVED"] == []
    all_cpus = ray.cluster_resources()["CPU"]
    assert _free_cpus(wanted=all_cpus) == all_cpus


def _free_cpus(wanted: float) -> float:
    """What Ray says is free, once it is as much as that; it tells nobody when it has given or taken back what a process
    or a placement group holds, and says so later."""
    deadline = time.monotonic() + 30
    while (free := ray.available_resources().get("CPU", 0.0)) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return free
