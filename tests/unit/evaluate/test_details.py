"""Calibration, residuals and the worst rows, each against a second, slower way to the same."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from raypipe.evaluate.details import NUM_WORST, calibration_of, details_of, merged, residuals_of, worst_rows
from raypipe.model.metrics import CALIBRATION_BINS
from raypipe.model.tasks import task_of
from raypipe.records import Column, EvaluationDetails, Signature

ANIMALS = Signature(
    inputs=(Column(name="weight", dtype="float64"),), task="classification", target="animal", classes=("cat", "dog")
)
PRICES = Signature(inputs=(Column(name="weight", dtype="float64"),), task="regression", target="price")


@given(arrays(np.float64, 30, elements=st.floats(0, 1)), arrays(np.bool_, 30))
def test_calibration_counts_each_row_in_the_bin_of_its_confidence(confidence: Any, right: Any):
    bins = calibration_of(right, confidence)
    expected = []
    for i in range(CALIBRATION_BINS):
        rows = [j for j, sure in enumerate(confidence) if min(int(sure * CALIBRATION_BINS), CALIBRATION_BINS - 1) == i]
        if rows:
            expected.append((len(rows), np.mean(confidence[rows]), np.mean(right[rows])))
    assert [each.num_rows for each in bins] == [n for n, _, _ in expected]
    np.testing.assert_allclose([(each.confidence, each.accuracy) for each in bins], [row[1:] for row in expected])


def test_calibration_error_is_the_mean_gap_by_rows():
    details = details_of(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), np.array([0.95, 0.95, 0.95, 0.55]), [])
    assert details.calibration_error == pytest.approx((3 * 0.05 + 0.55) / 4)
    assert EvaluationDetails().calibration_error is None


@given(
    arrays(np.float64, 20, elements=st.floats(allow_nan=False, allow_infinity=False)),
    arrays(np.float64, 20, elements=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_residuals_count_each_row_once_whatever_the_numbers_are(target: Any, value: Any):
    found = residuals_of(target, value)
    with np.errstate(over="ignore"):
        held = int(np.isfinite(value - target).sum())
    assert sum(found.histogram.counts) == held
    assert sum(map(sum, found.cells)) == 20
    assert len(found.scale) == len(found.cells) + 1 == len(found.cells[0]) + 1
    assert list(found.scale) == sorted(set(found.scale))


@pytest.mark.parametrize("value", [0.0, -1.5, 1e20, 1.7976931348623157e308, -1.7976931348623157e308, 5e-324])
def test_residuals_of_one_value_lie_in_one_bin(value: float):
    found = residuals_of(np.full(4, value), np.full(4, value))
    assert found.histogram.counts == (4,) and found.cells == ((4,),)


def test_residuals_none_of_which_float64_holds_are_counted_nowhere():
    found = residuals_of(np.array([-1.7e308]), np.array([1.7e308]))
    assert found.histogram.counts == (0,) and sum(map(sum, found.cells)) == 1


def test_residuals_tell_too_high_from_too_low_and_true_from_predicted():
    found = residuals_of(np.array([0.0, 0.0, 10.0]), np.array([5.0, 0.0, 10.0]))
    assert found.histogram.edges[0] == 0.0 and found.histogram.edges[-1] == 5.0
    assert found.histogram.counts[0] == 2 and found.histogram.counts[-1] == 1
    assert found.cells[0][len(found.cells) // 2] == 1, "true 0, predicted 5"


def test_worst_rows_are_those_whose_true_class_was_given_least_and_no_right_answers():
    given = np.array([[0.9, 0.1], [0.2, 0.8], [0.0, 1.0], [0.4, 0.6]])
    ids, columns = np.arange(4, dtype=np.uint64) + 10, {"weight": np.array([1.0, 2.0, 3.0, 4.0])}
    rows = worst_rows(100, ids, np.array([0, 0, 0, 1]), given, columns, task_of(ANIMALS))
    assert [(row.row, row.true, row.predicted, row.confidence) for row in rows] == [
        (102, "cat", "dog", 1.0),
        (101, "cat", "dog", 0.8),
    ]
    assert rows[0].row_id == f"{12:016x}" and rows[0].values == {"weight": "3.0"}
    assert np.isfinite(rows[0].loss) and rows[1].loss == pytest.approx(-np.log(0.2))


def test_worst_rows_of_all_pieces_are_those_of_the_whole():
    random = np.random.default_rng(0)
    target, value = random.normal(size=200), random.normal(size=200).round(1)
    ids, weights = np.arange(200, dtype=np.uint64), random.normal(size=200)

    def worst(start: int, stop: int) -> list[Any]:
        here = slice(start, stop)
        return worst_rows(start, ids[here], target[here], value[here], {"weight": weights[here]}, task_of(PRICES))

    whole = worst(0, 200)
    assert worst_rows(0, ids, target, value, {"weight": weights}, task_of(PRICES), whole[4].loss) == whole[:4]
    assert merged([*worst(0, 64), *worst(64, 128), *worst(128, 200)]) == tuple(whole)
    assert [row.row for row in whole] == np.argsort(-np.abs(value - target), kind="stable")[:NUM_WORST].tolist()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_picture_of_a_row_is_a_png_of_its_pixels(shape: tuple[int, ...]):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    image.flat[0] = 255  # nothing has to be brightened
    (row,) = worst_rows(
        0, np.zeros(1, np.uint64), np.array([1]), np.array([[1.0, 0.0]]), {"image": image[None]}, task_of(ANIMALS)
    )
    assert row.picture is not None and row.values == {}
    with Image.open(io.BytesIO(base64.b64decode(row.picture.partition(",")[2]))) as found:
        np.testing.assert_array_equal(np.asarray(found), image.reshape(5, 7, -1).squeeze())


def test_picture_of_few_bright_values_is_brightened_and_a_large_or_strange_one_left_out():
    def picture(image: Any) -> str | None:
        columns = {"image": image[None]}
        (row,) = worst_rows(0, np.zeros(1, np.uint64), np.array([1]), np.array([[1.0, 0.0]]), columns, task_of(ANIMALS))
        return row.picture

    dark = picture(np.array([[0, 8], [16, 4]], np.uint8))
    assert dark is not None
    with Image.open(io.BytesIO(base64.b64decode(dark.partition(",")[2]))) as found:
        assert np.asarray(found).tolist() == [[0, 128], [255, 64]]
    assert picture(np.zeros((2, 2), np.uint8)) is not None
    for other in (np.zeros((200, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32)):
        assert picture(other) is None
