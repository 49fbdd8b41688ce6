from __future__ import annotations

import pytest

from raypipe.data.transforms.base import State
from raypipe.data.transforms.hints import Hint, input_hints
from raypipe.records import Column

IMAGE = Column(name="x", dtype="uint8", shape=(8, 8))
FLOATS = Column(name="x", dtype="float32", shape=(8, 8))
NUMBER = Column(name="x", dtype="float64")
TEXT = Column(name="x", dtype="string")


def state(kind: str, fitted: dict[str, object] | None = None, **settings: object) -> State:
    return {"kind": kind, "columns": {"x": fitted or {}}, **settings}


def scale(factor: float, offset: float = 0.0) -> State:
    return state("scale", factor=factor, offset=offset)


@pytest.mark.parametrize(
    ("states", "column", "low", "high", "told_by"),
    [
        ([scale(0.0625)], IMAGE, 0, 16, "scale"),
        ([scale(1 / 255)], IMAGE, 0, 255, "scale"),
        ([scale(0.00392156862745098)], FLOATS, 0, 255, "scale"),
        ([scale(2 / 255, -1)], IMAGE, 0, 255, "scale"),
        ([state("min_max", {"min": [0.5], "max": [9.0]}, feature_range=[0, 1])], FLOATS, 0.5, 9, "fitted"),
        ([scale(0.5), state("min_max", {"min": [0.0], "max": [8.0]})], FLOATS, 0, 16, "fitted"),
        ([state("clip", {"min": -2.0, "max": 3.0})], NUMBER, -2, 3, "fitted"),
        ([state("normalize", {"mean": [0.13], "std": [0.31]})], FLOATS, 0, 1, "guessed"),
        ([state("normalize", {"mean": [4.9], "std": [6.0]})], IMAGE, 0, 16, "guessed"),
        ([state("normalize", {"mean": [125.0, 120.0, 110.0], "std": [60.0] * 3})], IMAGE, 0, 255, "guessed"),
        ([], IMAGE, 0, 255, "dtype"),
        ([], FLOATS, 0, 1, "dtype"),
        ([], Column(name="x", dtype="int8", shape=(2, 2)), 0, 127, "dtype"),
        ([scale(0.0)], FLOATS, 0, 1, "dtype"),
    ],
)
def test_range_of_raw_values_is_told_by_the_best_source(
    states: list[State], column: Column, low: float, high: float, told_by: str
):
    (hint,) = input_hints(states, [column]).values()
    assert (hint.low, hint.high, hint.told_by) == (pytest.approx(low), pytest.approx(high), told_by)


def test_picture_whose_mean_is_near_the_top_is_light():
    light = state("normalize", {"mean": [230.0], "std": [40.0]})
    dark = state("normalize", {"mean": [33.0], "std": [78.0]})
    assert input_hints([light], [IMAGE])["x"].is_light is True
    assert (
        input_hints([scale(1 / 255), state("normalize", {"mean": [0.13], "std": [0.3]})], [IMAGE])["x"].is_light
        is False
    )
    assert input_hints([dark], [IMAGE])["x"].is_light is False
    assert input_hints([], [IMAGE])["x"].is_light is None


def test_typical_value_is_in_the_unit_of_the_request():
    assert input_hints([scale(0.01), state("standardize", {"mean": [0.4], "std": [1.0]})], [NUMBER])["x"].typical == 40
    assert input_hints([state("impute", {"fill": 7.0}), state("one_hot", {"categories": [1, 7]})], [NUMBER])[
        "x"
    ] == Hint(low=0.0, high=1.0, told_by="dtype", typical=7.0, known=(1, 7))
    assert input_hints([state("impute", {"fill": "red"})], [TEXT])["x"].typical == "red"


def test_values_after_a_transform_tell_nothing_of_those_before():
    states = [state("log_mel", sample_rate=8000), state("normalize", {"mean": [-5.0], "std": [3.0]})]
    hint = input_hints(states, [Column(name="x", dtype="float32", shape=(8000,))])["x"]
    assert (hint.sample_rate, hint.low, hint.high) == (8000, -1, 1)
    assert (
        input_hints([state("log"), state("standardize", {"mean": [3.0], "std": [1.0]})], [NUMBER])["x"].typical is None
    )


def test_texts_that_are_cut_into_tokens_are_prose_and_joint_transforms_tell_nothing():
    assert input_hints([state("tokens", tokenizer="word")], [TEXT])["x"].is_prose
    cross: State = {"kind": "cross", "reads": ["x", "y"], "columns": {"x": {"categories": [["a", "b"]]}}}
    assert input_hints([cross], [TEXT])["x"] == Hint()
