"""A training begins with the weights it was told to, in networks that are built by what the transforms tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import ObjectMissing
from raypipe.model.artifact import write_artifact
from raypipe.records import ArtifactRef, DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.transforms import OrdinalTransform
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.order import TrainOrder
from raypipe.train.start import started_network

MLP = {"kind": "mlp", "hidden": [4], "embeddings": {"color": 3}}


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


def dataset(store: Store, num_classes: int = 2) -> DatasetVersion:
    colors = np.array(["red", "blue", "green"] * 4, object)
    transforms = [OrdinalTransform(kind="ordinal", columns=["color"])]
    return tiny_dataset(
        store, {"color": colors, "x": np.arange(12.0)}, np.arange(12) % num_classes, transforms=transforms
    )


def order(store: Store, first: ArtifactRef | None = None, num_classes: int = 2, **model: Any) -> TrainOrder:
    spec = PipelineSpec.model_validate(
        {
            "name": "start",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {**MLP, **model},
        }
    )
    return TrainOrder(spec, dataset(store, num_classes), store.uri, "r", "runs/r/train/artifact", first_weights=first)


def packaged(store: Store) -> tuple[ArtifactRef, dict[str, torch.Tensor]]:
    """A model of two classes, and its weights."""
    torch.manual_seed(1)
    made = order(store)
    module, text = started_network(made, store)
    assert text == ""
    return write_artifact(store, "models/a", module, made.spec.model, made.dataset), module.state_dict()


def test_network_begins_with_the_weights_of_another_model(store: LocalFolder) -> None:
    ref, weights = packaged(store)
    torch.manual_seed(2)

    module, text = started_network(order(store, ref, init_from="colors@1", frozen=["0.*"]), store)

    assert text == "starts from colors@1: 5 of the network's 5 tensors fit"
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert [n for n, p in module.named_parameters() if not p.requires_grad] == ["0.vectors.0.weight"]


def test_head_for_other_classes_begins_anew_as_the_seed_says(store: LocalFolder) -> None:
    ref, weights = packaged(store)
    torch.manual_seed(2)
    seeds_own = started_network(order(store, num_classes=3), store)[0].state_dict()
    torch.manual_seed(2)

    module, text = started_network(order(store, ref, 3, init_from="colors@1", init_partial=True), store)

    assert "3 of the network's 5 tensors fit; 2 have another shape" in text
    assert torch.equal(module.state_dict()["1.weight"], weights["1.weight"])
    assert torch.equal(module.state_dict()["3.weight"], seeds_own["3.weight"])


def test_weights_that_went_away_are_told(store: LocalFolder) -> None:
    ref, _ = packaged(store)
    store.delete_prefix(ref.key)
    with pytest.raises(ObjectMissing):
        started_network(order(store, ref, init_from="colors@1"), store)
