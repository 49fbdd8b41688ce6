"""Rows to try a network with before anybody asks it: like those of the training data, as far as the artifact tells.

What was fitted on train (means, extremes, categories, vocabularies) says what a column's values are like. A seed makes
them the same in every replica.  B rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table import fits, text_lists
from raypipe.errors import DataError
from raypipe.records import Column, Signature

NUM_DRAWN = 30

FAR = 10.0
"""Standard deviations from the mean to the far rows."""

WHOLE_RANGE = ("uint8", "int8", "uint16", "int16")
"""Types whose values are taken to lie anywhere in their range, as those of images and sound do."""

SMALL_INTEGERS = (0, 10)
"""Of wider integers that no transform tells anything about; they may well be places in an embedding."""

MAX_EXACT_INT = 2**53
"""Whole numbers up to here are floats without loss."""

TEXTS = ("a", "The cat sat on the mat.", "2024-02-29T12:30:00Z", "")

MOMENTS = ("1969-07-20", "2024-02-29T12:30:00Z", "2038-01-19 03:14:07")

MAX_TEXT_TOKENS = 20

logger = logging.getLogger("ray.serve")

Apply = Callable[[Mapping[str, Any]], NDArray[np.float32]]
"""Raw columns -> features; may raise for values that it does not take."""


def probe_features(
    signature: Signature, states: Sequence[Mapping[str, Any]], row_shape: tuple[int, ...], apply: Apply
) -> NDArray[np.float32]:
    """Features to compare engines with, float32 [B, *row_shape]: zeros first, then the far ends, then drawn rows.

    Args:
        states: the fitted transforms, as FittedTransforms.state gives them.
        apply: the transforms.
    """
    random = np.random.default_rng(0)
    zeros = np.zeros((1, *row_shape), np.float32)
    for is_careful in (False, True):
        try:
            draws = [_Draw(column, states, random, is_careful=is_careful) for column in signature.inputs]
            drawn = {draw.column.name: draw.rows(NUM_DRAWN) for draw in draws}
            _put_known_combinations(drawn, states, random)
            parts = [zeros, apply(drawn)]
        except DataError:  # values that a transform refuses
            continue
        except Exception:
            _log_unexpected("drawn rows")
            continue
        for end in (0, -1):
            try:
                parts.insert(1, apply({draw.column.name: draw.end(end) for draw in draws}))
            except DataError:  # e.g. a logarithm of what lies far below the mean
                continue
            except Exception:
                _log_unexpected("a row at the far ends")
        return np.concatenate(parts)
    return np.concatenate([zeros, random.standard_normal((NUM_DRAWN, *row_shape), np.float32)])


def _log_unexpected(rows: str) -> None:
    """Of what no transform may raise; nothing may stop a start that only tries rows."""
    logger.warning("%s to compare engines with could not be made; others are taken", rows, exc_info=True)


class _Draw:
    """Values of one column.

    Args:
        is_careful: where nothing is known: numbers above 0 and moments, which logarithms and date_parts take.
    """

    def __init__(
        self, column: Column, states: Sequence[Mapping[str, Any]], random: np.random.Generator, *, is_careful: bool
    ) -> None:
        self.column = column
        self._is_careful = is_careful
        self._random = random
        self._known: dict[str, Any] = {}
        for state in states:  # the first transform that tells a thing saw the values as they came
            self._known = {**state["columns"].get(column.name, {}), **self._known}

    def rows(self, num: int) -> NDArray[Any]:
        """[num, *shape]."""
        column, known, random = self.column, self._known, self._random
        if column.dtype == "string":
            return np.array(self._lists(num) if column.is_list else self._texts(num), object)
        shape = (num, *column.shape)
        if "categories" in known:
            return self._cast(random.choice(np.array(known["categories"], np.float64), shape))
        if column.dtype == "bool":
            return random.integers(0, 2, shape).astype(bool)
        low, high, mean, std = self._numbers()
        return self._cast(random.uniform(low, high, shape) if std is None else mean + std * random.normal(size=shape))

    def end(self, end: int) -> NDArray[Any]:
        """One row [1, *shape] at the lower (0) or the upper (-1) end."""
        column, known = self.column, self._known
        if column.dtype == "string":
            word = _ends(self._words())[end]
            return np.array([text_lists.written([word]) if column.is_list else word], object)
        shape = (1, *column.shape)
        if "categories" in known:
            return self._cast(np.full(shape, _ends(known["categories"])[end], np.float64))
        if column.dtype == "bool":
            return np.full(shape, bool(end))
        low, high, mean, std = self._numbers()
        if std is not None:
            low, high = mean - FAR * std, mean + FAR * std
        return self._cast(np.broadcast_to(np.asarray((low, high)[end], np.float64), shape))

    def _numbers(self) -> tuple[Any, Any, Any, Any]:
        """Low and high; or mean and standard deviation where that is not None."""
        known = self._known
        if self.column.dtype in WHOLE_RANGE:
            low, high = fits.limits(self.column.dtype)
            return low, high, None, None
        if "mean" in known and len(known["mean"]) in (1, *self.column.shape[-1:]):
            return None, None, np.array(known["mean"]), np.array(known["std"])
        if known.get("min") is not None and known.get("max") is not None:
            return np.array(known["min"]), np.array(known["max"]), None, None
        if "median" in known:
            return None, None, known["median"], known["width"]
        if known.get("boundaries"):
            return known["boundaries"][0] - 1.0, known["boundaries"][-1] + 1.0, None, None
        if isinstance(known.get("fill"), int | float):
            return None, None, known["fill"], 1.0
        if self._is_careful:
            return 1.0, 100.0, None, None
        if not self.column.dtype.startswith("float"):
            return *SMALL_INTEGERS, None, None
        return None, None, 0.0, 1.0

    def _cast(self, values: NDArray[np.float64]) -> NDArray[Any]:
        dtype = self.column.dtype
        if dtype != "bool" and not dtype.startswith("float"):
            low, high = fits.limits(dtype)
            values = np.clip(np.round(values), max(low, -MAX_EXACT_INT), min(high, MAX_EXACT_INT))
        return values.astype(fits.held_as(self.column))

    def _texts(self, num: int) -> list[str]:
        words = self._words()
        if "vocabulary" not in self._known:
            return [words[i] for i in self._random.integers(0, len(words), num)]
        lengths = self._random.integers(1, MAX_TEXT_TOKENS, num)
        glue = "" if all(len(word) == 1 for word in words) else " "
        return [glue.join(words[i] for i in self._random.integers(0, len(words), length)) for length in lengths]

    def _lists(self, num: int) -> list[str]:
        words = self._words()
        lengths = self._random.integers(0, MAX_TEXT_TOKENS, num)
        return [text_lists.written([words[i] for i in self._random.integers(0, len(words), n)]) for n in lengths]

    def _words(self) -> list[str]:
        return list(
            self._known.get("categories") or self._known.get("vocabulary") or (MOMENTS if self._is_careful else TEXTS)
        )


def _ends(values: Sequence[Any]) -> tuple[Any, Any]:
    return values[0], values[-1]


def _put_known_combinations(
    columns: dict[str, NDArray[Any]], states: Sequence[Mapping[str, Any]], random: np.random.Generator
) -> None:
    """Where a cross knows combinations of categories, let the drawn rows be among them."""
    for state in states:
        for fitted in state["columns"].values() if "reads" in state else ():
            known = fitted.get("categories")
            if known:
                chosen = [known[i] for i in random.integers(0, len(known), NUM_DRAWN)]
                for read, values in zip(state["reads"], zip(*chosen, strict=True), strict=True):
                    columns[read] = np.array(values, columns[read].dtype)
