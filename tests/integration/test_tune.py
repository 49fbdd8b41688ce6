"""Searches on real Ray: every trial is a small training on 60 rows."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import SpecError, TrainingError
from raypipe.records import DatasetVersion, TuneResult
from raypipe.runtime.progress import Progress
from raypipe.spec.load import with_values
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.storage.documents import read_mapping
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.train.loop import run
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from raypipe.tune.stage import tune
from raypipe.tune.trial_log import read_outcome
from tests.integration.search_driver import Driver

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


@pytest.fixture
def dataset(store: LocalFolder) -> DatasetVersion:
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3)).astype(np.float32)
    return tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)


def _spec(tune: dict[str, Any], **train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "search",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {"kind": "linear"},
            "train": {"epochs": 3, "global_batch_size": 20, "optimizer": {"kind": "sgd"}, **train},
            "tune": {"space": {"train.optimizer.lr": {"log_uniform": [0.001, 1.0]}}, "num_trials": 4, **tune},
        }
    )


def _tune(spec: PipelineSpec, dataset: DatasetVersion, store: LocalFolder, run_id: str, **options: Any) -> TuneResult:
    progress = options.pop("progress", None)
    ctx = run_context(store, run_id=run_id, **options)
    return tune(spec, dataset, ctx if progress is None else replace(ctx, progress=progress))


def test_tune_driver_killed_in_mid_search_goes_on_and_repeats_no_finished_trial(
    store: LocalFolder, dataset: DatasetVersion, ray_cluster: SimpleNamespace, tmp_path: Path
) -> None:
    spec = _spec({"num_trials": 6, "search": {"kind": "tpe", "num_random_trials": 2}, "max_concurrent_trials": 1})
    driver = Driver(ray_cluster.address, store, "killed", spec, dataset, tmp_path)
    finished = driver.run_until(lambda num_finished: num_finished >= 2)
    kept = {trial_id: _artifact(store, "killed", trial_id) for trial_id in _finished(store, "killed")}
    stream = io.StringIO()

    result = _tune(spec, dataset, store, "killed", progress=Progress("killed", stream))

    assert 2 <= finished < 6 and len(kept) == finished
    assert f"{finished} of 6 trials ended before and are kept" in stream.getvalue()
    assert {trial_id: _artifact(store, "killed", trial_id) for trial_id in kept} == kept, "none was trained again"
    whole = _tune(spec, dataset, store, "whole")
    assert result.trials == whole.trials and len({str(trial.values) for trial in result.trials}) == 6
    assert result.best.artifact.digest == whole.best.artifact.digest and result.best.run_id == "killed"
    assert not [info.key for info in store.list(layout.trials("killed")) if "/checkpoints/" in info.key]


def test_tune_two_trials_at_one_time_are_told_live_one_line_each(store: LocalFolder, dataset: DatasetVersion) -> None:
    stream = io.StringIO()
    spec = _spec({"num_trials": 4, "max_concurrent_trials": 2}, epochs=4)

    result = _tune(spec, dataset, store, "r1", progress=Progress("r1", stream))

    told = [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()]
    begun = {
        trial: told.index(next(line for line in told if line.startswith(f"trial {trial}/4  begins")))
        for trial in (1, 2, 3)
    }
    ends = [number for number, line in enumerate(told) if "completed  val_loss" in line]
    assert begun[1] < begun[2] < ends[0] < begun[3], "two run, and the third when one of them has ended"
    for trial in range(1, 5):
        assert [line for line in told if line.startswith(f"trial {trial}/4  epoch 4/4  val_loss")]
    assert len(ends) == 4 and told[-1] == "4 trials: 4 completed"
    assert [trial.status for trial in result.trials] == ["completed"] * 4


def test_tune_population_continues_over_checkpoints_with_the_bits_of_an_unbroken_training(
    store: LocalFolder, dataset: DatasetVersion
) -> None:
    adam = {"kind": "adam", "lr": 0.01}
    search = {"kind": "pbt", "every_epochs": 2, "replaced_frac": 0.5}
    spec = _spec({"num_trials": 2, "search": search, "max_concurrent_trials": 2}, epochs=5, optimizer=adam)

    result = _tune(spec, dataset, store, "r1")

    assert [(trial.trial_id, trial.epochs) for trial in result.trials] == [
        *(("g001-m001", 2), ("g001-m002", 2), ("g002-m001", 4), ("g002-m002", 4), ("g003-m001", 5), ("g003-m002", 5))
    ]
    assert {trial.status for trial in result.trials} == {"completed"}
    first, second, third = result.trials[:2], result.trials[2:4], result.trials[4:]
    assert {trial.values["train.optimizer.lr"] for trial in first} > {
        trial.values["train.optimizer.lr"] for trial in second
    } & {trial.values["train.optimizer.lr"] for trial in first}, "one of two gave up"
    unchanged = [trial for trial in second if trial.values in [each.values for each in first]]
    alone = with_values(spec, unchanged[0].values)
    alone = alone.model_copy(update={"train": alone.train.model_copy(update={"epochs": 4})})
    order = TrainOrder(alone, dataset, store.uri, "alone", "runs/alone/artifact", checkpoints=False)
    expected = run(order, World(device=torch.device("cpu")), lambda event: None)
    outcome = read_outcome(store, "r1", unchanged[0].trial_id)
    assert outcome is not None and outcome[1].artifact.digest == expected.artifact.digest
    assert outcome[1].history == expected.history
    assert min(trial.metric or 0.0 for trial in third) < min(trial.metric or 0.0 for trial in first)
    assert not [info.key for info in store.list(layout.trials("r1")) if "/checkpoints/" in info.key]


def _finished(store: LocalFolder, run_id: str) -> list[str]:
    return [info.key.split("/")[-2] for info in store.list(layout.trials(run_id)) if layout.is_trial_record(info.key)]


def _artifact(store: LocalFolder, run_id: str, trial_id: str) -> list[Any]:
    return list(store.list(layout.trial_artifact(run_id, trial_id)))


def test_tune_asha_stops_trials_early_and_the_best_still_finishes(store: LocalFolder, dataset: DatasetVersion) -> None:
    asha = {"kind": "asha", "reduction_factor": 2}
    spec = _spec({"num_trials": 8, "scheduler": asha, "max_concurrent_trials": 2}, epochs=8)

    result = _tune(spec, dataset, store, "r1")

    states = [trial.status for trial in result.trials]
    assert len(states) == 8 and set(states) == {"completed", "stopped"}
    stopped = [trial for trial in result.trials if trial.status == "stopped"]
    assert all(1 <= trial.epochs < 8 and trial.metric is not None for trial in stopped)
    assert len(result.best.history) == 8


def test_tune_failing_trial_is_counted_and_the_search_goes_on(
    store: LocalFolder, dataset: DatasetVersion, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "searched_model.py").write_text(
        "from torch import nn\n"
        "def build(width):\n"
        "    if width == 13:\n"
        "        raise RuntimeError('thirteen brings bad luck')\n"
        "    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))\n"
    )
    spec = _spec({"space": {"model.args.width": {"choice": [4, 13]}}, "num_trials": 3, "max_concurrent_trials": 2})
    own = {"kind": "import", "path": "searched_model.py:build", "args": {"width": 4}}
    spec = PipelineSpec.model_validate({**spec.model_dump(mode="json"), "model": own})

    result = _tune(spec, dataset, store, "r1", code_dir=tmp_path)

    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert failed and all(trial.values == {"model.args.width": 13} for trial in failed)
    assert all("thirteen brings bad luck" in (trial.error or "") for trial in failed)
    assert {trial.status for trial in result.trials} == {"failed", "completed"}
    assert result.best_values == {"model.args.width": 4}
    assert "Traceback" not in "".join(capfd.readouterr()), "a trial's reason is told by us"

    hopeless = with_values(spec, {"tune.space": {"model.args.width": {"choice": [13]}}, "tune.num_trials": 1})
    with pytest.raises(TrainingError, match=r"none of 1 trials finished; the first said: .*thirteen brings bad luck"):
        _tune(hopeless, dataset, store, "r2", code_dir=tmp_path)


def test_tune_space_whose_every_point_is_refused_ends_at_once_with_the_reason(
    store: LocalFolder, dataset: DatasetVersion, capfd: pytest.CaptureFixture[str]
) -> None:
    space = {"train.optimizer.momentum": {"choice": [0.0]}, "train.optimizer.nesterov": {"choice": [True]}}
    spec = _spec({"space": space, "num_trials": 50}, optimizer={"kind": "sgd", "momentum": 0.9})

    with pytest.raises(SpecError, match=r"tune\.space: none of 100 points can be trained; .*nesterov needs momentum"):
        _tune(spec, dataset, store, "r1")

    assert not list(store.list(layout.trials("r1"))), "no trial began"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_tune_searches_a_data_field_on_a_dataset_of_its_own(store: LocalFolder, tmp_path: Path) -> None:
    from raypipe.data.stage import prepare

    space = {"data.transforms.0.factor": {"choice": [0.0625, 1.0]}}
    spec = _spec({"num_trials": 2, "space": space, "max_concurrent_trials": 1})
    image = {
        "source": {"format": "sklearn", "dataset": "digits"},
        "target": "label",
        "transforms": [{"kind": "scale", "columns": ["image"], "factor": 0.0625}],
    }
    spec = PipelineSpec.model_validate({**spec.model_dump(mode="json"), "data": image})
    ctx = run_context(store, run_id="r1")
    dataset = prepare(spec.data, ctx)

    result = tune(spec, dataset, ctx)

    assert [trial.status for trial in result.trials] == ["completed"] * 2
    factor = result.best_values["data.transforms.0.factor"]
    assert result.dataset.transforms[0]["factor"] == factor
    assert (result.dataset.version == dataset.version) == (factor == 0.0625)
    assert result.best.dataset == result.dataset.version
    versions = {info.key.split("/")[2] for info in store.list(f"datasets/{ctx.name}") if info.key.count("/") > 2}
    assert len(versions) == 2, "the trial with another factor made a dataset version of its own"
    latest = read_mapping(store, layout.latest_dataset(ctx.name))["version"]
    assert latest == dataset.version, "drift is measured against what a run prepared, not against what a trial tried"


def test_tune_trial_of_several_workers_is_a_training_of_its_own(store: LocalFolder, dataset: DatasetVersion) -> None:
    spec = _spec({"num_trials": 1}, num_workers=2, epochs=2)

    result = _tune(spec, dataset, store, "r1")

    assert [(trial.status, trial.epochs) for trial in result.trials] == [("completed", 2)]
    assert result.best.num_workers == 2 and len(result.best.history) == 2
