"""Searches on real Ray: every trial is a small training on 60 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.errors import TrainingError
from raypipe.records import DatasetVersion, TuneResult
from raypipe.spec.load import with_values
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.storage.documents import read_mapping
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts import SearchContract
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.tune.search import SEARCHES
from raypipe.tune.stage import tune

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
    return tune(spec, dataset, run_context(store, run_id=run_id, **options))


@pytest.mark.parametrize("name", SEARCHES)
def test_tune_every_search_keeps_the_contract(name: str, tmp_path: Path) -> None:
    SearchContract(name, tmp_path / "search").check_search()
    SearchContract(name, tmp_path / "goes-on").check_goes_on()


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
