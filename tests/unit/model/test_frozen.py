"""Parameters that training leaves as they are: by pattern, with their batch normalization, told where nothing fits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.errors import ModelError
from raypipe.model.artifact import read_artifact
from raypipe.model.build import build_model
from raypipe.model.frozen import freeze
from raypipe.runtime import seeds
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.loop import run
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

RESNET = {"kind": "resnet", "channels": [4, 8], "blocks_per_stage": 1, "norm": "batch"}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)]
    return nn.Sequential(*parts)


def order(folder: Path, **model: object) -> TrainOrder:
    """Two epochs on 40 images of two classes."""
    store = LocalFolder(str(folder / "store"))
    images = np.random.default_rng(0).normal(size=(60, 8, 8)).astype(np.float32)
    dataset = tiny_dataset(store, {"image": images}, np.arange(60) % 2, num_val=20)
    spec = PipelineSpec.model_validate(
        {
            "name": "frozen",
            "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y"},
            "model": {**RESNET, **model},
            "train": {"epochs": 2, "global_batch_size": 16, "optimizer": {"kind": "adamw", "lr": 0.05}},
        }
    )
    return TrainOrder(spec, dataset, store.uri, "r", "runs/r/train/artifact", checkpoints=False)


def built(order: TrainOrder) -> nn.Module:
    """The network as a training of this order begins with it."""
    torch.manual_seed(seeds.derive(order.spec.seed, "weights"))
    return build_model(order.spec.model, order.dataset.signature, order.dataset.feature_shape, None)


def test_training_leaves_frozen_parameters_and_their_running_averages_to_the_bit(tmp_path: Path) -> None:
    frozen = order(tmp_path, frozen=["stem.*", "blocks.0.*"])
    first = built(frozen).state_dict()

    result = run(frozen, World(), lambda event: None)
    trained = read_artifact(LocalFolder(frozen.store_uri), result.artifact)[1].state_dict()

    is_same = {name: torch.equal(first[name], trained[name]) for name in first}
    assert {name for name in first if is_same[name]} == {n for n in first if n.startswith(("stem.", "blocks.0."))}
    assert "stem.1.running_mean" in first


def test_frozen_parameters_get_no_optimizer_state(tmp_path: Path) -> None:
    module = built(order(tmp_path, frozen=["stem.*", "blocks.*"]))
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    module.train()(torch.randn(4, 8, 8)).sum().backward()
    optimizer.step()

    with_state = [name for name, parameter in module.named_parameters() if parameter in optimizer.state]

    assert with_state == ["head.weight", "head.bias"]
    assert [name for name, parameter in module.named_parameters() if parameter.requires_grad] == with_state


def test_batch_norm_of_frozen_parts_stays_in_eval_mode_in_copies_too() -> None:
    layers = network()
    freeze(layers, ["0.*", "1.*"])

    for each in (layers, copy.deepcopy(layers)):
        each.train()
        assert [part.training for part in each] == [True, False, True, True]
    copied: Any = copy.deepcopy(layers)
    before = copied[1].running_mean.clone()
    copied.train()
    copied(torch.randn(8, 3))
    assert torch.equal(copied[1].running_mean, before)
    assert not torch.equal(copied[2].running_mean, before)


def test_batch_norm_of_which_a_part_learns_keeps_learning_its_averages() -> None:
    layers = network()
    freeze(layers, ["*.weight"])
    layers.train()
    assert layers[1].training


def test_batch_norm_without_parameters_is_frozen_by_its_averages() -> None:
    layers = network()
    freeze(layers, ["[012].*"])
    layers.train()
    assert [part.training for part in layers] == [True, False, False, True]


def test_pattern_that_matches_nothing_shows_close_names() -> None:
    with pytest.raises(ModelError, match=r"model.frozen: 'block.\*' matches none of the network's 6 param") as caught:
        freeze(nn.ModuleDict({"blocks": network()}), ["block.*"])
    assert "blocks.*" in caught.value.hint


def test_everything_frozen_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="every parameter is frozen"):
        run(order(tmp_path, frozen=["*"]), World(), lambda event: None)
