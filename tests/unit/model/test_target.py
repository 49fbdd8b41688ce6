"""A target scaled for the network, and answers back in its unit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.data.shuffle import target as data_target
from raypipe.errors import DataError
from raypipe.model.target import describe, fit_target, loss_factor, resolved, step_size, to_model, to_unit
from raypipe.records import Signature, TargetStatistics, TargetTransform

SIGNATURE = Signature(inputs=(), task="regression", target="price")
CLASSES = Signature(inputs=(), task="classification", target="kind", classes=("a", "b"))


def _train(*values: float) -> TargetStatistics:
    return data_target.finish([data_target.part(np.array(values))])


def test_auto_standardizes_numbers_and_leaves_classes_alone() -> None:
    assert resolved("auto", SIGNATURE) == "standardize"
    assert resolved("auto", CLASSES) == "none"
    assert resolved("none", SIGNATURE) == "none"


@pytest.mark.parametrize("kind", ["standardize", "log"])
def test_target_trained_on_has_mean_0_and_standard_deviation_1(kind) -> None:
    prices = np.random.default_rng(0).lognormal(12, 0.7, 5000)
    fitted = fit_target(kind, SIGNATURE, [_train(*prices)])

    scaled = to_model(prices, fitted, "price")

    assert scaled.dtype == np.float32
    assert scaled.mean() == pytest.approx(0, abs=1e-5) and scaled.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(to_unit(scaled, fitted), prices, rtol=1e-6)


@given(st.floats(-1e12, 1e12), st.floats(1e-3, 1e6))
def test_spread_far_below_the_mean_keeps_its_digits(mean: float, spread: float) -> None:
    values = mean + spread * np.array([-1.0, 0.25, 2.0])
    fitted = fit_target("standardize", SIGNATURE, [_train(*values)])

    back = to_unit(to_model(values, fitted, "price"), fitted)

    assert back.dtype == np.float64
    assert isinstance(fitted.std, float), "of one target"
    assert np.abs(back - values).max() <= 1e-6 * fitted.std + 4 * np.spacing(abs(mean))


def test_constant_target_is_moved_to_0_and_answered_as_it_is() -> None:
    train = _train(7.5, 7.5, 7.5)
    fitted = fit_target("standardize", SIGNATURE, [train])

    assert to_model(np.array([7.5]), fitted, "price").tolist() == [0.0]
    assert to_unit(np.zeros(1, np.float32), fitted).tolist() == [7.5]
    assert describe(fitted, SIGNATURE, [train]).endswith("all 3 train rows hold 7.5, so there is nothing to learn")
    assert fit_target("log", SIGNATURE, [train]).std == 1.0


def test_log_of_a_target_not_above_0_is_refused_with_count_and_example() -> None:
    with pytest.raises(
        DataError, match=r"target_transform: log needs .* 'price' is not in 2 of 4 rows of train, e\.g\. -3"
    ):
        fit_target("log", SIGNATURE, [_train(5.0, -3.0, 0.0, 2.0)])
    with pytest.raises(DataError, match=r"'price' is not in 1 of 2 rows, e\.g\. 0"):
        to_model(np.array([1.0, 0.0]), TargetTransform(kind="log"), "price")


def test_values_whose_squares_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match=r"from 1 to 1e\+200, whose squares no float64 holds"):
        fit_target("standardize", SIGNATURE, [_train(1.0, 1e200)])


def test_transform_travels_as_json_to_the_last_bit() -> None:
    fitted = fit_target("standardize", SIGNATURE, [_train(0.1, 0.2, 1e9 / 3)])

    assert TargetTransform.model_validate_json(fitted.to_json()) == fitted
    for field, value in (("std", 0.0), ("std", -1.0), ("mean", "Infinity"), ("std", "NaN"), ("kind", "exec")):
        with pytest.raises(ValidationError):
            TargetTransform.model_validate_json(json.dumps({**fitted.model_dump(), field: value}))


def test_loss_factor_tells_a_loss_in_the_targets_unit() -> None:
    fitted = TargetTransform(kind="standardize", mean=3.0, std=10.0)

    assert [loss_factor(loss, fitted) for loss in ("auto", "mse", "huber")] == [100.0, 100.0, 100.0]
    assert [loss_factor(loss, fitted) for loss in ("mae", "quantile")] == [10.0, 10.0]
    assert loss_factor("mse", TargetTransform()) == 1.0


def test_step_size_is_what_a_change_of_the_network_costs_in_the_targets_unit() -> None:
    values = np.array([2.0, 8.0])

    assert step_size(values, TargetTransform(kind="standardize", std=10.0)) == 10.0
    assert step_size(values, TargetTransform(kind="log", std=0.5)) == 4.0
    assert step_size(values, TargetTransform()) == 1.0
