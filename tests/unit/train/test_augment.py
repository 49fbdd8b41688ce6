from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import DataError
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.spec.train import AugmentSpec
from raypipe.storage import Store, open_store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import augment, loop, reporter
from raypipe.train.augment import augmented
from raypipe.train.rows import World
from tests.unit.train.interrupted import answer_after_interruption
from tests.unit.train.orders import order

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3, 6, 5)).astype(np.float32))
ALL = {"horizontal_flip_prob": 0.5, "crop_padding": 1, "contrast_frac": 0.2, "brightness": 0.3}


def test_flip_mirrors_about_the_share_asked_for_left_to_right():
    done = augmented(IMAGES, AugmentSpec(horizontal_flip_prob=0.5), 1)
    is_same = (done == IMAGES).flatten(1).all(dim=1)
    is_mirrored = (done == IMAGES.flip(-1)).flatten(1).all(dim=1)
    assert (is_same ^ is_mirrored).all()
    assert 70 < int(is_mirrored.sum()) < 130
    assert torch.equal(augmented(IMAGES, AugmentSpec(horizontal_flip_prob=1.0), 1), IMAGES.flip(-1))


def test_crop_takes_every_place_of_the_padded_image():
    padded = torch.nn.functional.pad(IMAGES, [2, 2, 2, 2])
    done = augmented(IMAGES, AugmentSpec(crop_padding=2), 1)
    places = {
        next((y, x) for y in range(5) for x in range(5) if torch.equal(padded[b, :, y : y + 6, x : x + 5], done[b]))
        for b in range(len(done))
    }
    assert places == {(y, x) for y in range(5) for x in range(5)}


def test_contrast_and_brightness_are_one_number_an_image_within_their_bounds():
    more = (augmented(IMAGES, AugmentSpec(brightness=0.3), 1) - IMAGES).flatten(1)
    assert float((more.amax(dim=1) - more.amin(dim=1)).max()) < 1e-5
    assert -0.3 <= float(more.min()) < -0.2 and 0.2 < float(more.max()) <= 0.3 + 1e-5
    done = augmented(IMAGES, AugmentSpec(contrast_frac=0.5), 1).flatten(1)
    torch.testing.assert_close(done.mean(dim=1), IMAGES.flatten(1).mean(dim=1), atol=1e-5, rtol=0)
    factor = done.std(dim=1) / IMAGES.flatten(1).std(dim=1)
    assert 0.5 <= float(factor.min()) < 0.6 and 1.4 < float(factor.max()) <= 1.5 + 1e-5


def test_augmented_layouts_get_the_same_changes():
    first = augmented(IMAGES, AugmentSpec.model_validate(ALL), 3)
    last = augmented(IMAGES.permute(0, 2, 3, 1), AugmentSpec.model_validate({**ALL, "channels": "last"}), 3)
    torch.testing.assert_close(last.permute(0, 3, 1, 2), first)
    grey = augmented(IMAGES[:, 0], AugmentSpec(horizontal_flip_prob=0.5, crop_padding=1), 3)
    torch.testing.assert_close(grey, augmented(IMAGES, AugmentSpec(horizontal_flip_prob=0.5, crop_padding=1), 3)[:, 0])


def test_augmented_follows_from_the_seed_alone_and_leaves_its_input():
    spec, before = AugmentSpec.model_validate(ALL), IMAGES.clone()
    first = augmented(IMAGES, spec, 3)
    torch.manual_seed(99)
    assert torch.equal(augmented(IMAGES, spec, 3), first)
    assert not torch.equal(augmented(IMAGES, spec, 4), first)
    assert torch.equal(IMAGES, before)


def images(store: Store) -> DatasetVersion:
    random = np.random.default_rng(3)
    pixels = random.normal(size=(67, 6, 6)).astype(np.float32)
    return tiny_dataset(store, {"x": pixels}, (pixels[:, :, :3].mean(axis=(1, 2)) > 0).astype(int), rows_per_shard=10)


def test_run_with_augment_stopped_within_an_epoch_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)  # an event each step, to stop at one
    data = images(LocalFolder(str(tmp_path)))
    train: dict[str, Any] = {"checkpoint": {"every_steps": 2}, "augment": ALL}
    model = {"kind": "cnn", "channels": [4]}
    whole = loop.run(order(tmp_path, "whole", train, data=data, model=model), World(), lambda event: None)
    resumed = answer_after_interruption(order(tmp_path, "resumed", train, data=data, model=model), World())
    assert resumed["started_at"] == [0, 8]
    assert resumed["artifact"]["digest"] == whole.artifact.digest
    plain = loop.run(
        order(tmp_path, "plain", {"checkpoint": {"every_steps": 2}}, data=data, model=model),
        World(),
        lambda event: None,
    )
    assert plain.artifact.digest != whole.artifact.digest


def test_run_draws_anew_each_epoch_and_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[int] = []

    def noted(image_B: torch.Tensor, spec: AugmentSpec, seed: int) -> torch.Tensor:
        drawn.append(seed)
        return augmented(image_B, spec, seed)

    monkeypatch.setattr(augment, "augmented", noted)  # the seeds are seen nowhere else
    data = images(LocalFolder(str(tmp_path)))
    training = order(tmp_path, "r1", {"augment": ALL, "epochs": 2}, data=data, model={"kind": "cnn", "channels": [4]})
    loop.run(training, World(), lambda event: None)
    assert len(set(drawn)) == len(drawn) == 2 * 6


def test_predictor_of_an_augmented_training_changes_nothing(tmp_path: Path):
    data = images(LocalFolder(str(tmp_path)))
    training = order(tmp_path, "r1", {"augment": ALL}, data=data, model={"kind": "cnn", "channels": [4]})
    result = loop.run(training, World(), lambda event: None)
    predictor = Predictor.load(open_store(training.store_uri), result.artifact)
    pixels = np.random.default_rng(5).normal(size=(4, 6, 6)).astype(np.float32)
    assert np.array_equal(predictor.predict({"x": pixels}).values, predictor.predict({"x": pixels}).values)


def test_run_with_augment_on_a_table_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"train.augment changes images .* has shape \[3\]"):
        loop.run(order(tmp_path, "r1", {"augment": ALL}), World(), lambda event: None)
