from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.data.shards import load_rows
from raypipe.errors import DataError, ModelError, UserCodeError
from raypipe.model import predictor as room
from raypipe.model.artifact import write_artifact
from raypipe.model.build import build_model
from raypipe.model.predictor import Predictor
from raypipe.model.tasks import json_able
from raypipe.records import DatasetVersion
from raypipe.spec.model import CnnModel, ImportModel, LinearModel, Model
from raypipe.storage.local import LocalFolder


def _predictor(store: LocalFolder, dataset: DatasetVersion, spec: Model) -> Predictor:
    module = build_model(spec, dataset.signature, dataset.feature_shape, None)
    return Predictor.load(store, write_artifact(store, "a", module, spec, dataset))


def test_predictions_of_classes_are_json_rows_with_label_and_probabilities(
    store: LocalFolder, images: DatasetVersion
) -> None:
    predictor = _predictor(store, images, CnnModel(kind="cnn", channels=[4]))
    answers = predictor.predict(load_rows(store, images, "train").columns)

    rows = json.loads(json.dumps(json_able(predictor.task.json_rows(answers.values))))
    assert answers.values.dtype == np.float32 and answers.values.shape == (12, 3)
    assert len(rows) == 12
    for row, label in zip(rows, answers.labels().tolist(), strict=True):
        assert row["label"] == (answers.classes or ())[label]
        assert row["probability"] == max(row["probabilities"])
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-6)


def test_predictions_of_numbers_are_json_floats(store: LocalFolder, table: DatasetVersion) -> None:
    predictor = _predictor(store, table, LinearModel(kind="linear"))
    answers = predictor.predict(load_rows(store, table, "train").columns)

    assert answers.classes is None and answers.values.shape == (12,)
    assert json.loads(json.dumps(json_able(predictor.task.json_rows(answers.values)))) == answers.values.tolist()


def test_predict_no_rows_gives_no_answers(store: LocalFolder, images: DatasetVersion) -> None:
    predictor = _predictor(store, images, LinearModel(kind="linear"))

    answers = predictor.predict({"image": np.zeros((0, 6, 6), np.uint8)})

    assert predictor.task.json_rows(answers.values) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 12), max_size=4))
def test_predict_rows_cut_anywhere_give_the_same_answers(
    cuts: list[int], store: LocalFolder, images: DatasetVersion
) -> None:
    predictor = _predictor(store, images, CnnModel(kind="cnn", channels=[4]))
    columns = load_rows(store, images, "train").columns
    whole = predictor.predict(columns)

    parts = [predictor.predict({"image": part}).values for part in np.split(columns["image"], sorted(cuts))]

    np.testing.assert_allclose(np.concatenate(parts), whole.values, rtol=0, atol=1e-6)


def test_predict_more_rows_than_one_call_takes_gives_the_same_answers(
    store: LocalFolder, table: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = _predictor(store, table, LinearModel(kind="linear"))
    columns = load_rows(store, table, "train").columns
    whole = predictor.predict(columns).values
    monkeypatch.setattr(room, "MAX_CALL_ROWS", 5)  # several calls for these few rows

    np.testing.assert_allclose(predictor.predict(columns).values, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": np.array([41.0])}, "column 'color' is missing"),
        ({"age": np.array([np.nan]), "color": np.array(["red"], object)}, "column 'age' holds a missing value"),
        ({"age": np.array([41.0]), "color": np.array(["mauve"], object)}, "column 'color' holds 'mauve'"),
    ],
)
def test_predict_value_the_model_cannot_take_is_named(
    columns: dict[str, np.ndarray], message: str, store: LocalFolder, table: DatasetVersion
) -> None:
    with pytest.raises(DataError, match=message):
        _predictor(store, table, LinearModel(kind="linear")).predict(columns)


RAISES_ON_MANY_ROWS = """
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, x):
        if len(x) > 5:
            raise KeyError('no such weather')
        return self.layer(x.flatten(1))

def build():
    return Own()
"""


def test_predict_what_the_users_network_raises_is_told_with_type_file_and_line(
    store: LocalFolder, images: DatasetVersion, code_dir: Callable[[str], Path]
) -> None:
    spec, folder = ImportModel(kind="import", path="model.py:build"), code_dir(RAISES_ON_MANY_ROWS)
    module = build_model(spec, images.signature, images.feature_shape, folder)
    ref = write_artifact(store, "a", module, spec, images, code_dir=folder)
    predictor = Predictor.load(store, ref, code_dir=folder)
    rows = load_rows(store, images, "train").columns

    assert len(predictor.predict({"image": rows["image"][:5]}).values) == 5
    with pytest.raises(UserCodeError) as caught:
        predictor.predict(rows)
    assert "the model failed on 12 rows: model.py line 11, in forward: KeyError: 'no such weather'" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "it crosses processes of Ray"


def test_build_what_the_users_function_raises_is_told_with_type_file_and_line(
    images: DatasetVersion, code_dir: Callable[[str], Path]
) -> None:
    folder = code_dir("def build():\n    return {}['width']\n")
    with pytest.raises(ModelError, match=r"model.py line 2, in build: KeyError: 'width'"):
        build_model(ImportModel(kind="import", path="model.py:build"), images.signature, images.feature_shape, folder)


def test_predict_by_another_engine_answers_as_eager_and_says_which_it_is(
    store: LocalFolder, images: DatasetVersion, table: DatasetVersion
) -> None:
    for dataset, spec in ((images, CnnModel(kind="cnn", channels=[4])), (table, LinearModel(kind="linear"))):
        module = build_model(spec, dataset.signature, dataset.feature_shape, None)
        ref = write_artifact(store, f"{spec.kind}", module, spec, dataset)
        eager, traced = Predictor.load(store, ref), Predictor.load(store, ref, engine="auto")
        rows = load_rows(store, dataset, "train").columns

        assert (eager.engine.name, traced.engine.name) == ("eager", "traced"), traced.engine
        np.testing.assert_allclose(traced.predict(rows).values, eager.predict(rows).values, rtol=1e-6, atol=1e-6)
        no_rows = {name: values[:0] for name, values in rows.items()}
        assert traced.predict(no_rows).values.shape == eager.predict(no_rows).values.shape


def test_predict_where_the_engine_fails_eager_has_the_word(
    store: LocalFolder, images: DatasetVersion, code_dir: Callable[[str], Path]
) -> None:
    hides_its_rows = RAISES_ON_MANY_ROWS.replace("len(x) > 5", "x.untyped_storage().nbytes() > 50 * 36 * 4")
    spec, folder = ImportModel(kind="import", path="model.py:build"), code_dir(hides_its_rows)
    module = build_model(spec, images.signature, images.feature_shape, folder)
    ref = write_artifact(store, "a", module, spec, images, code_dir=folder)
    predictor = Predictor.load(store, ref, code_dir=folder, engine="traced")

    def broken(features: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    predictor._engine = broken  # type: ignore[assignment]
    rows = load_rows(store, images, "train").columns["image"]
    expected = Predictor.load(store, ref, code_dir=folder).predict({"image": rows})
    np.testing.assert_array_equal(predictor.predict({"image": rows}).values, expected.values)
    with pytest.raises(UserCodeError, match="no such weather"):
        predictor.predict({"image": np.repeat(rows, 5, axis=0)})
