"""What `raypipe init --from` writes learns: trained here, without Ray, on the rows that its own file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier

from raypipe.data.formats import FORMATS
from raypipe.data.formats.datasource import read_group
from raypipe.data.table import columns
from raypipe.draft.stage import draft
from raypipe.model.predictor import Predictor
from raypipe.spec.load import parse_pipeline
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

VAL_FRAC, TEST_FRAC = 0.15, 0.2


pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of(spec: PipelineSpec, folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows that the file reads, in random order: features and target."""
    source: Any = spec.data.source
    parts, read_part = FORMATS[source.format].plan(source, str(folder))
    (table,) = read_group(parts, read_part, None)
    order = np.random.default_rng(0).permutation(table.num_rows)
    values = {name: np.asarray(columns.values(table[name]))[order] for name in table.column_names}
    return {name: values[name] for name in spec.data.feature_names(table.column_names)}, values[spec.data.target]


def trained(spec: PipelineSpec, features: dict[str, np.ndarray], target: np.ndarray, store: LocalFolder) -> Predictor:
    """The model of the file, in this process; the last rows are those of the test."""
    num_val, num_test = int(VAL_FRAC * len(target)), int(TEST_FRAC * len(target))
    data = tiny_dataset(
        store,
        features,
        target,
        task=spec.data.task,
        transforms=spec.data.transforms,
        num_val=num_val,
        num_test=num_test,
    )
    order = TrainOrder(spec, data, store.uri, "r1", "runs/r1/train/artifact")
    return Predictor.load(store, loop.run(order, World(), lambda event: None).artifact)


def accuracy(predictor: Predictor, features: dict[str, np.ndarray], target: np.ndarray) -> float:
    """On the rows of the test."""
    num_test = int(TEST_FRAC * len(target))
    answers = predictor.predict({name: values[-num_test:] for name, values in features.items()})
    classes = np.array(predictor.signature.classes)
    return float((classes[np.asarray(answers.values).argmax(axis=1)] == target[-num_test:]).mean())


def test_table_is_learned_within_three_per_cent_of_gradient_boosting(tmp_path: Path):
    data: Any = load_breast_cancer()
    header = ",".join([*data.feature_names, "target"])
    np.savetxt(tmp_path / "t.csv", np.column_stack([data.data, data.target]), "%.10g", ",", header=header, comments="")
    spec = parse_pipeline(draft(str(tmp_path / "t.csv"), str(tmp_path / "p"), "p").pipeline)
    features, target = rows_of(spec, tmp_path)
    ours = accuracy(trained(spec, features, target, LocalFolder(str(tmp_path / "kept"))), features, target)
    num_test = int(TEST_FRAC * len(target))
    table = np.column_stack(list(features.values()))
    boosted = HistGradientBoostingClassifier(random_state=0).fit(table[:-num_test], target[:-num_test])
    assert ours >= 0.97 * boosted.score(table[-num_test:], target[-num_test:])
    assert ours >= (spec.evaluate.gates[0].min or 1)


def test_folder_of_pictures_is_learned_beyond_its_gate(tmp_path: Path):
    random = np.random.default_rng(1)
    for number in range(160):
        name = ("lying", "standing")[number % 2]
        pixels = random.integers(0, 90, (16, 16, 3), np.uint8)
        at, start = random.integers(2, 13), random.integers(0, 6)
        line = (slice(at, at + 2), slice(start, start + 10))
        pixels[line if name == "lying" else line[::-1]] += 120
        path = tmp_path / "bars" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    spec = parse_pipeline(draft(str(tmp_path / "bars"), str(tmp_path / "p"), "p").pipeline)
    features, target = rows_of(spec, tmp_path)
    predictor = trained(spec, features, target, LocalFolder(str(tmp_path / "kept")))
    assert accuracy(predictor, features, target) >= max(0.9, spec.evaluate.gates[0].min or 1)
