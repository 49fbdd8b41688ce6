"""Which places of a row hold categories, and the vectors that an MLP reads them as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from raypipe.errors import ModelError
from raypipe.model.artifact import read_artifact, write_artifact
from raypipe.model.build import build_model
from raypipe.model.features import Features, Part
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.spec.model import MlpModel
from raypipe.spec.transforms import Transform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset

TRANSFORMS: list[dict[str, Any]] = [
    {"kind": "standardize", "columns": ["age"]},
    {"kind": "cross", "columns": ["color", "size"], "output": "index", "num_buckets": 9},
    {"kind": "ordinal", "columns": ["color"], "unknown": "ignore"},
    {"kind": "one_hot", "columns": ["size"]},
    {"kind": "bucketize", "columns": ["built"], "boundaries": [1950, 1980], "output": "index"},
    {"kind": "hashing", "columns": ["agency"], "num_buckets": 5, "output": "index"},
]


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))


@pytest.fixture
def flats(store: LocalFolder) -> DatasetVersion:
    """Twelve rows of five columns."""
    columns = {
        "color": np.array(["red", "blue", "green"] * 4, object),
        "age": np.arange(12.0),
        "size": np.array(["S", "L"] * 6, object),
        "built": np.array([1940.0, 1960.0, 2000.0, 1950.0] * 3),
        "agency": np.array(["a", "b", "c", "d"] * 3, object),
    }
    transforms = [TypeAdapter[Transform](Transform).validate_python(each) for each in TRANSFORMS]
    return tiny_dataset(store, columns, np.arange(12) % 2, transforms=transforms)


def build(dataset: DatasetVersion, **embeddings: int) -> Any:
    torch.manual_seed(0)
    spec = MlpModel(kind="mlp", hidden=[8], embeddings=embeddings)
    return build_model(spec, dataset.signature, dataset.feature_shape, None, transforms=dataset.transforms)


def test_parts_say_where_each_column_lies_and_how_many_categories_its_index_has(flats: DatasetVersion) -> None:
    parts = Features(flats.feature_shape, flats.signature.inputs, flats.transforms).parts()
    assert parts == [
        Part("color", 0, 1, 3),
        Part("age", 1, 1, None),
        Part("size", 2, 2, None),
        Part("built", 4, 1, 3),
        Part("agency", 5, 1, 5),
        Part("color x size", 6, 1, 9),
    ]
    assert flats.feature_shape == (7,)


def test_mlp_reads_categories_as_vectors_and_the_other_features_as_they_are(flats: DatasetVersion) -> None:
    network = build(flats, color=4, agency=2, **{"color x size": 3})
    embed = network[0]
    row = torch.tensor([[2.0, 0.5, 0.0, 1.0, 2.0, 4.0, 8.0]])

    read = embed(row)[0]

    assert [each.weight.shape for each in embed.vectors] == [(4, 4), (6, 2), (10, 3)]
    assert read[:4].tolist() == [0.5, 0.0, 1.0, 2.0]
    vectors = [embed.vectors[0].weight[3], embed.vectors[1].weight[5], embed.vectors[2].weight[9]]
    assert torch.equal(read[4:], torch.cat(vectors))


def test_mlp_unknown_category_has_a_vector_of_its_own(flats: DatasetVersion) -> None:
    embed = build(flats, color=4)[0]
    unknown = torch.tensor([[-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(embed(unknown)[0, -4:], embed.vectors[0].weight[0])


def test_mlp_without_embeddings_has_the_names_it_always_had(flats: DatasetVersion) -> None:
    assert list(build(flats).state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]


def test_packaged_mlp_with_embeddings_answers_raw_rows_alike_in_every_engine(
    flats: DatasetVersion, store: LocalFolder
) -> None:
    network = build(flats, color=4, built=2).eval()
    spec = MlpModel(kind="mlp", hidden=[8], embeddings={"color": 4, "built": 2})
    ref = write_artifact(store, "models/flats", network, spec, flats)
    rows = {
        "color": np.array(["green", "violet"], object),
        "age": np.array([3.0, 4.0]),
        "size": np.array(["S", "L"], object),
        "built": np.array([1949.0, 1980.0]),
        "agency": np.array(["b", "z"], object),
    }

    eager, traced = (Predictor.load(store, ref, engine=engine).predict(rows) for engine in ("eager", "traced"))

    assert read_artifact(store, ref)[0].model["embeddings"] == {"color": 4, "built": 2}
    with torch.no_grad():
        expected = network(torch.from_numpy(Predictor.load(store, ref).features(rows))).softmax(dim=1).numpy()
    np.testing.assert_allclose(eager.values, expected, atol=1e-6)
    np.testing.assert_allclose(traced.values, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "message", "hint"),
    [
        ({"colour": 4}, "there is no feature 'colour'; there are color, age, size", "did you mean 'color'"),
        ({"age": 4}, "'age' is no index of a category .* but one number", "ordinal"),
        ({"size": 4}, "'size' is no index of a category .* but 2 numbers", "output: index"),
    ],
)
def test_mlp_embedding_of_what_is_no_category_is_refused(
    embeddings: dict[str, int], message: str, hint: str, flats: DatasetVersion
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(flats, **embeddings)
    assert hint in caught.value.hint
