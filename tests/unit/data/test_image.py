from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError, ModelError
from raypipe.model.build import build_model
from raypipe.records import Column
from raypipe.spec.model import CnnModel
from raypipe.testing.fakes import MemoryStore, fit_columns, tiny_dataset
from tests.unit.data.transforms import transforms as parsed

RANDOM = np.random.default_rng(0)
PHOTOS = RANDOM.integers(0, 256, (40, 12, 9, 3), np.uint8)
PHOTO = Column(name="i", dtype="uint8", shape=(12, 9, 3))
GREY = Column(name="i", dtype="uint8", shape=(12, 9))
SIZES = [(12, 9), (24, 30), (5, 4), (1, 1), (13, 2), (6, 3)]

Fields = dict[str, Any]


def fit(column: Column, values: np.ndarray, *specs: Fields, cuts: tuple[int, ...] = (7, 25)) -> FittedTransforms:
    transforms = parsed(*({"columns": ["i"], **spec} for spec in specs))
    return fit_columns(transforms, [column], [{"i": part} for part in np.split(values, list(cuts))])


def apply(column: Column, values: np.ndarray, *specs: Fields) -> np.ndarray:
    return fit(column, values, *specs).apply({"i": values}, [column])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resize_equals_pillow_within_a_thousandth_of_a_grey_level(height: int, width: int):
    found = apply(GREY, PHOTOS[..., 0], {"kind": "resize", "height": height, "width": width})
    assert found.shape == (40, height, width) and found.dtype == np.float32
    for image, done in zip(PHOTOS[..., 0], found, strict=True):
        expected = Image.fromarray(image.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(done, np.asarray(expected), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resize_equals_torch_within_a_thousandth_of_a_grey_level(height: int, width: int):
    found = apply(PHOTO, PHOTOS, {"kind": "resize", "height": height, "width": width})
    expected = functional.interpolate(
        torch.from_numpy(PHOTOS).permute(0, 3, 1, 2).float(), size=(height, width), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-3)


def test_resize_with_channels_first_does_the_same_to_the_other_axes():
    column = Column(name="i", dtype="uint8", shape=(3, 12, 9))
    size = {"kind": "resize", "height": 7, "width": 11}
    found = apply(column, np.moveaxis(PHOTOS, -1, 1), {**size, "channels": "first"})
    assert np.array_equal(np.moveaxis(found, 1, -1), apply(PHOTO, PHOTOS, size))


def test_resize_of_an_image_in_a_batch_gives_the_bits_it_gives_alone():
    fitted = fit(PHOTO, PHOTOS, {"kind": "resize", "height": 5, "width": 30}, {"kind": "normalize"})
    whole = fitted.apply({"i": PHOTOS}, [PHOTO])
    for size in (1, 3, 40):
        parts = [fitted.apply({"i": PHOTOS[i : i + size]}, [PHOTO]) for i in range(0, 40, size)]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("channels", ["last", "first"])
def test_normalize_has_mean_and_std_of_all_train_pixels_of_a_channel(channels: str):
    shifted = (PHOTOS * np.array([1.0, 0.5, 0.1])).astype(np.uint8)
    mean, std = shifted.mean(axis=(0, 1, 2), dtype=np.float64), shifted.std(axis=(0, 1, 2), dtype=np.float64)
    column, values = PHOTO, shifted
    if channels == "first":
        column, values = Column(name="i", dtype="uint8", shape=(3, 12, 9)), np.moveaxis(shifted, -1, 1)
    fitted = fit(column, values, {"kind": "normalize", "channels": channels})
    state = fitted.state()[0]["columns"]["i"]
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(state["std"], std, rtol=1e-12)
    done = fitted.apply({"i": values}, [column])
    done = np.moveaxis(done, 1, -1) if channels == "first" else done
    np.testing.assert_allclose(done, (shifted - mean) / std, atol=1e-5)


def test_normalize_of_grey_images_has_one_channel_and_of_a_constant_one_only_centres_it():
    found = apply(GREY, np.full((40, 12, 9), 7, np.uint8), {"kind": "normalize"})
    assert (found == 0).all()


def test_normalize_by_given_numbers_reads_no_rows():
    values = {"mean": [0.0, 10.0, 20.0], "std": [1.0, 2.0, 4.0]}
    fitted = fit(PHOTO, PHOTOS[:0], {"kind": "normalize", **values}, cuts=())
    done = fitted.apply({"i": PHOTOS}, [PHOTO])
    assert np.array_equal(
        done, (PHOTOS.astype(np.float32) - np.array([0, 10, 20], np.float32)) / np.array([1, 2, 4], np.float32)
    )


def test_channels_first_moves_the_channels():
    found = apply(PHOTO, PHOTOS, {"kind": "channels_first"})
    assert np.array_equal(found, np.moveaxis(PHOTOS, -1, 1)) and found.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "spec", "told"),
    [
        (
            (12,),
            {"kind": "resize", "height": 3, "width": 3},
            r"needs images .* column 'i' holds values of shape \[12\]",
        ),
        ((12, 9), {"kind": "channels_first"}, r"needs \[H, W, C\], but column 'i' has shape \[12, 9\]"),
        ((12, 9, 3), {"kind": "normalize", "mean": [1.0], "std": [1.0]}, "of 1 channels, but column 'i' has 3"),
        ((2, 3, 4, 5), {"kind": "normalize"}, "normalize needs images"),
    ],
)
def test_image_transforms_of_other_shapes_are_refused_before_any_row_is_read(
    shape: tuple[int, ...], spec: Fields, told: str
):
    with pytest.raises(DataError, match=told):
        fit(Column(name="i", dtype="uint8", shape=shape), np.empty((0, *shape), np.uint8), spec, cuts=())


def cnn_for(*specs: Fields) -> torch.nn.Module:
    transforms = parsed(*({"columns": ["i"], **spec} for spec in specs))
    dataset = tiny_dataset(MemoryStore(), {"i": PHOTOS}, np.arange(40) % 2, transforms=transforms)
    module = build_model(CnnModel(kind="cnn", channels=[4, 8]), dataset.signature, dataset.feature_shape, None)
    fitted = FittedTransforms.from_state(dataset.transforms)
    assert module(torch.from_numpy(fitted.apply({"i": PHOTOS}, dataset.signature.inputs))).shape == (40, 2)
    return module


def test_cnn_reads_photos_that_are_resized_normalized_and_turned():
    cnn_for({"kind": "resize", "height": 8, "width": 8}, {"kind": "normalize"}, {"kind": "channels_first"})


def test_cnn_of_photos_that_are_not_turned_names_the_transform_that_does_it():
    with pytest.raises(ModelError, match=r"\[8, 8, 3\], which looks like \[H, W, C\]") as caught:
        cnn_for({"kind": "resize", "height": 8, "width": 8})
    assert "channels_first" in (caught.value.hint or "")
