"""Text to how often its n-grams occur, by a vocabulary or by buckets of a hash, weighted as scikit-learn weights them.

F features, N n-grams of one text.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import (
    Fitted,
    State,
    TransformKind,
    need_text,
    nothing_to_fit,
    numbers,
    refuse_missing,
)
from raypipe.data.transforms.counting import MAX_ROWS
from raypipe.data.transforms.murmur import murmur32
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.text_transforms import NgramsTransform

WORD = re.compile(r"(?u)\b\w\w+\b")
BLANKS = re.compile(r"\s\s+")

MAX_CHARS = 2**18
"""Of a text: what lies behind is not read."""

MAX_COUNTED = 2**19
"""Different n-grams that are kept, the most frequent; they are sorted out once there are twice as many."""

CACHED = 2**17
"""n-grams whose buckets are remembered."""


@dataclass
class Counted:
    """How often n-grams occur in some rows.

    Attributes:
        times: n-gram -> how often; rows: n-gram, or number of a bucket -> rows that hold it.
        max_missed: how often one that is not kept occurs at most; 0 where none is.
    """

    num_rows: int = 0
    times: Counter[str] = field(default_factory=Counter)
    rows: Counter[str | int] = field(default_factory=Counter)
    max_missed: int = 0

    def sort_out(self) -> None:
        """Keep the MAX_COUNTED most frequent, where there are many more; of equally frequent ones the smaller."""
        if len(self.times) <= 2 * MAX_COUNTED:
            return
        kept = heapq.nsmallest(MAX_COUNTED + 1, self.times.items(), key=lambda item: (-item[1], item[0]))
        self.max_missed += kept.pop()[1]
        self.times = Counter(dict(kept))
        self.rows = Counter({ngram: self.rows[ngram] for ngram in self.times})


class Ngrams(TransformKind):
    """Counts, or what is made of them, of the n-grams that train knows, or in buckets."""

    @staticmethod
    def needs_rows(spec: NgramsTransform) -> bool:
        return spec.num_buckets is None or spec.weight == "tf_idf"

    @staticmethod
    def enough_rows(spec: NgramsTransform) -> int:
        return MAX_ROWS

    @staticmethod
    def check(spec: NgramsTransform, column: Column) -> Column:
        need_text(spec, column)
        return numbers(column, (spec.num_buckets or -1,))

    @staticmethod
    def partial(spec: NgramsTransform, values: pa.Array, name: str) -> Counted:
        refuse_missing(values, name)
        counted, buckets = Counted(len(values)), Buckets(spec.num_buckets or 1)
        for text in values.to_pylist():
            found = Counter(ngrams_of(text, spec))
            if spec.num_buckets is not None:
                counted.rows.update({bucket for bucket, _ in buckets.of(list(found))})
                continue
            counted.times.update(found)
            counted.rows.update(found.keys())
            counted.sort_out()
        return counted

    @staticmethod
    def combine(spec: NgramsTransform, first: Counted, second: Counted, name: str) -> Counted:
        both = Counted(
            first.num_rows + second.num_rows,
            first.times + second.times,
            first.rows + second.rows,
            first.max_missed + second.max_missed,
        )
        both.sort_out()
        return both

    @staticmethod
    def finish(spec: NgramsTransform, partial: Counted | None, name: str) -> Fitted:
        if not Ngrams.needs_rows(spec):
            return {}
        if partial is None:
            raise nothing_to_fit(spec, name)
        if spec.num_buckets is not None:
            return {"idf": [_idf(partial.rows[bucket], partial.num_rows) for bucket in range(spec.num_buckets)]}
        most = spec.max_rows_frac * partial.num_rows
        known = [ngram for ngram in partial.times if spec.min_rows <= partial.rows[ngram] <= most]
        if not known:
            raise _nothing_known(spec, partial, name)
        often = partial.rows if spec.weight == "binary" else partial.times
        known = heapq.nsmallest(spec.max_features or 0, known, key=lambda ngram: (-often[ngram], ngram))
        fitted: Fitted = {
            "vocabulary": sorted(known),
            "num_sampled": partial.num_rows,
            "max_missed": partial.max_missed,
        }
        if spec.weight == "tf_idf":
            fitted["idf"] = [_idf(partial.rows[ngram], partial.num_rows) for ngram in fitted["vocabulary"]]
        return fitted

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._spec = NgramsTransform.model_validate({**state, "columns": [name]})
        self._place = {ngram: place for place, ngram in enumerate(fitted.get("vocabulary", ()))}
        self._num_features = self._spec.num_buckets or len(self._place)
        self._buckets = Buckets(self._spec.num_buckets or 1)
        is_weighted = self._spec.weight == "tf_idf"
        self._idf_F = np.array(fitted["idf"], np.float64) if is_weighted else np.ones(self._num_features)
        if self._idf_F.shape != (self._num_features,):
            raise ValueError(f"idf has shape {self._idf_F.shape}, and there are {self._num_features} features")

    def apply(self, values: pa.Array) -> np.ndarray:
        """float64 [B, F]."""
        refuse_missing(values, self.name)
        done_BF = np.zeros((len(values), self._num_features))
        for row, text in enumerate(values.to_pylist()):
            counts = self._counts(Counter(ngrams_of(text, self._spec)))
            place_N = np.array(sorted(counts), np.int64)
            done_BF[row, place_N] = self._weighted(np.array([counts[place] for place in place_N.tolist()]), place_N)
        return done_BF

    def _counts(self, found: Counter[str]) -> dict[int, float]:
        """Feature -> how often it occurs."""
        if self._spec.num_buckets is None:
            return {self._place[ngram]: num for ngram, num in found.items() if ngram in self._place}
        counts: dict[int, float] = {}
        for (bucket, sign), num in zip(self._buckets.of(list(found)), found.values(), strict=True):
            counts[bucket] = counts.get(bucket, 0) + (sign * num if self._spec.signed else num)
        return counts

    def _weighted(self, count_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
        spec = self._spec
        if spec.weight == "binary":
            count_N = np.ones(len(count_N))
        elif spec.sublinear:
            count_N = np.array([1.0 + math.log(num) for num in count_N])  # alone, so that neighbours change no bit
        value_N = count_N * self._idf_F[place_N]
        if spec.norm == "none":
            return value_N
        sizes_N = value_N * value_N if spec.norm == "l2" else np.abs(value_N)
        total = float(np.add.reduce(sizes_N))
        total = math.sqrt(total) if spec.norm == "l2" else total
        return value_N / total if total else value_N


class Buckets:
    """n-gram -> bucket and sign, as scikit-learn's FeatureHasher gives them."""

    def __init__(self, num_buckets: int) -> None:
        self._num = num_buckets
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, ngrams: list[str]) -> list[tuple[int, int]]:
        if len(self._known) > CACHED:
            self._known.clear()
        new = [ngram for ngram in ngrams if ngram not in self._known]
        hashed = murmur32(new)
        bucket = np.abs(hashed) % self._num
        lowest = hashed == -(2**31)  # has no opposite in 32 bits, which scikit-learn works around so
        bucket[lowest] = (2**31 - self._num) % self._num
        sign = np.where(hashed >= 0, 1, -1)
        self._known.update(zip(new, zip(bucket.tolist(), sign.tolist(), strict=True), strict=True))
        return [self._known[ngram] for ngram in ngrams]


def ngrams_of(text: str, spec: NgramsTransform) -> Iterator[str]:
    """All n-grams of a text, one that occurs twice twice."""
    text = text[:MAX_CHARS]
    return ANALYZERS[spec.analyzer](text.lower() if spec.lowercase else text, *spec.ngram_range)


def _of_words(text: str, low: int, high: int) -> Iterator[str]:
    words = WORD.findall(text)
    for size in range(low, min(high, len(words)) + 1):
        for start in range(len(words) - size + 1):
            yield " ".join(words[start : start + size])


def _of_characters(text: str, low: int, high: int) -> Iterator[str]:
    text = BLANKS.sub(" ", text)
    for size in range(low, min(high, len(text)) + 1):
        for start in range(len(text) - size + 1):
            yield text[start : start + size]


def _within_words(text: str, low: int, high: int) -> Iterator[str]:
    for word in BLANKS.sub(" ", text).split():
        padded = f" {word} "
        for size in range(low, high + 1):
            for start in range(max(1, len(padded) - size + 1)):
                yield padded[start : start + size]
            if len(padded) <= size:
                break  # the whole word counts once


ANALYZERS: dict[str, Callable[[str, int, int], Iterator[str]]] = {
    "word": _of_words,
    "char": _of_characters,
    "char_wb": _within_words,
}


def _idf(num_with: int, num_rows: int) -> float:
    return math.log((1 + num_rows) / (1 + num_with)) + 1.0


def _nothing_known(spec: NgramsTransform, counted: Counted, name: str) -> DataError:
    """The error of texts of which no n-gram is kept."""
    what = f"data.transforms: ngrams keeps no n-gram of column '{name}'"
    if not counted.rows:
        units = "words of two letters or more" if spec.analyzer == "word" else "characters"
        return DataError(
            f"{what}: ngram_range begins with {spec.ngram_range[0]}, and none of the {counted.num_rows} texts of train "
            f"has so many {units}",
            "lower the first of ngram_range, use analyzer: char, or leave the column out",
        )
    ngram, rows = counted.rows.most_common(1)[0]
    least = min(counted.rows.values())
    return DataError(
        f"{what}: of {len(counted.rows):,} different ones in {counted.num_rows} texts of train each is in {least} to "
        f"{rows} texts ({str(ngram)[:40]!r}), and min_rows: {spec.min_rows}, max_rows_frac: {spec.max_rows_frac:g} "
        "leave none",
        "lower min_rows, or raise max_rows_frac",
    )
