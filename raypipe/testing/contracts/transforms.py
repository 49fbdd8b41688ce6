"""What every transform must hold."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from raypipe.errors import DataError
from raypipe.spec.transforms import Transform

_TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)

_ROWS = np.random.default_rng(3)


def _gaps(values: np.ndarray, missing: Any) -> np.ndarray:
    return np.where(np.arange(len(values)) % 4 == 1, missing, values)


_NUMBER, _AMOUNT = _ROWS.normal(5.0, 3.0, 60), _ROWS.exponential(1e3, 60)
_CITY = np.array(["Bonn", "Köln", "Aachen", "10"], object)[_ROWS.integers(0, 4, 60)]
_TEXT = np.array(["The cat sat.", "", "a naïve\u00a0cat, the cat\n", "日本語 the  x_1\0 💡!"], object)[
    np.arange(60) % 4
]
_DAY = np.array(["2024-02-29", "1969-12-31T23:59:59Z", "2024-01-01 00:30:00.25+01:00"], object)[np.arange(60) % 3]
_TAGS = np.array(['["red","new"]', "[]", '["red","a \\"b\\"","red"]', '["日本"]', '["Bonn"]'], object)[
    np.arange(60) % 5
]

TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("[CLS]", 2), ("[SEP]", 3))
            },
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {
                word: number
                for number, word in enumerate(
                    ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "the", "cat", "sat", ".", ",", "a", "k", "##öln", "日", "##本"]
                )
            },
        },
    }
)
"""A tokenizer.json in which 1 is padding."""

TRANSFORM_COLUMNS: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "number": ({"dtype": "float64"}, _NUMBER),
    "number_gaps": ({"dtype": "float64", "nullable": True}, _gaps(_NUMBER, np.nan)),
    "amount": ({"dtype": "float64"}, _AMOUNT),
    "count": ({"dtype": "int64"}, _ROWS.integers(-2, 3, 60)),
    "seconds": ({"dtype": "int64"}, _ROWS.integers(-(10**9), 2 * 10**9, 60)),
    "flag": ({"dtype": "bool"}, _ROWS.integers(0, 2, 60).astype(bool)),
    "city": ({"dtype": "string"}, _CITY),
    "city_gaps": ({"dtype": "string", "nullable": True}, _gaps(_CITY, None)),
    "day": ({"dtype": "string"}, _DAY),
    "vector": ({"dtype": "float32", "shape": (3,)}, _ROWS.normal(size=(60, 3)).astype(np.float32)),
    "image": ({"dtype": "uint8", "shape": (4, 5)}, _ROWS.integers(0, 256, (60, 4, 5), np.uint8)),
    "text": ({"dtype": "string"}, _TEXT),
    "tags": ({"dtype": "string", "is_list": True}, _TAGS),
    "photo": ({"dtype": "uint8", "shape": (6, 5, 3)}, _ROWS.integers(0, 256, (60, 6, 5, 3), np.uint8)),
    "planes": ({"dtype": "float32", "shape": (2, 4, 5)}, _ROWS.normal(size=(60, 2, 4, 5)).astype(np.float32)),
    "audio": ({"dtype": "float32", "shape": (200,)}, _ROWS.normal(0.0, 0.3, (60, 200)).astype(np.float32)),
}
"""Name -> fields of its Column, and raw values of 60 rows."""


class TransformContract:
    """A transform is fitted from any cut of the rows, travels as JSON, and treats every row for itself.

    Args:
        name: key in raypipe.data.transforms.KINDS.
    """

    examples: dict[str, list[dict[str, Any]]] = {
        "scale": [{"columns": ["number", "number_gaps", "image"], "factor": 0.5, "offset": -1.0}],
        "standardize": [{"columns": ["number", "number_gaps", "count", "vector", "image"]}],
        "min_max": [{"columns": ["number", "number_gaps", "vector", "image"], "feature_range": [-1, 1]}],
        "robust": [{"columns": ["number", "number_gaps", "count"]}],
        "clip": [
            {"columns": ["number", "number_gaps", "vector"], "min": 0.0, "max": 1.0},
            {"columns": ["number", "number_gaps"], "quantile_range": [0.1, 0.9]},
        ],
        "log": [{"columns": ["amount"]}, {"columns": ["number", "image"], "offset": 100.0}],
        "impute": [
            {"columns": ["number", "number_gaps"], "strategy": "mean"},
            {"columns": ["number", "number_gaps"], "strategy": "median"},
            {"columns": ["number_gaps"], "strategy": "constant", "value": 2.0},
        ],
        "bucketize": [
            {"columns": ["number"], "boundaries": [0.0, 5.0]},
            {"columns": ["number", "count"], "num_buckets": 4, "output": "index"},
        ],
        "one_hot": [{"columns": ["city", "count", "flag"]}],
        "ordinal": [{"columns": ["city", "count"]}, {"columns": ["city"], "categories": sorted(set(_CITY))[::-1]}],
        "hashing": [{"columns": ["city", "count"], "num_buckets": 5}],
        "date_parts": [
            {"columns": ["day"], "parts": ["year", "quarter", "day_of_year", "hour", "second"]},
            {"columns": ["seconds"], "parts": ["year", "quarter", "day_of_year", "hour", "second"], "unit": "seconds"},
            {"columns": ["day"], "cyclical": True},
        ],
        "tokens": [
            {"columns": ["text", "city"], "tokenizer": "char", "max_length": 9, "max_vocabulary": 12},
            {"columns": ["text", "city"], "tokenizer": "byte", "max_length": 11},
            {"columns": ["text", "city"], "tokenizer": "word", "max_length": 3, "max_vocabulary": 9, "lowercase": True},
            {"columns": ["text", "city"], "tokenizer": "bpe", "max_length": 7, "max_vocabulary": 270},
        ],
        "bag_of_words": [
            {"columns": ["tags"]},
            {"columns": ["tags"], "max_words": 3, "lowercase": True},
        ],
        "pretrained_tokens": [
            {"columns": ["text", "city"], "file": "t.json", "max_length": 9, "content": TOKENIZER},
            {"columns": ["text"], "file": "t.json", "max_length": 4, "ids": "file", "content": TOKENIZER},
        ],
        "ngrams": [
            {"columns": ["text", "city"], "max_features": 9},
            {"columns": ["text"], "analyzer": "char", "ngram_range": [1, 3], "max_features": 40, "sublinear": True},
            {"columns": ["text"], "num_buckets": 17, "weight": "count", "norm": "l1", "signed": True},
            {"columns": ["text"], "num_buckets": 7, "analyzer": "char_wb", "ngram_range": [2, 4]},
        ],
        "resize": [
            {"columns": ["image", "photo"], "height": 3, "width": 7},
            {"columns": ["planes"], "height": 9, "width": 2, "channels": "first"},
        ],
        "normalize": [
            {"columns": ["image", "photo"]},
            {"columns": ["planes"], "channels": "first"},
            {"columns": ["photo"], "mean": [100.0, 110.0, 120.0], "std": [40.0, 50.0, 60.0]},
        ],
        "channels_first": [{"columns": ["photo"]}],
        "log_mel": [
            {"columns": ["audio"], "sample_rate": 8000, "window_samples": 64, "hop_samples": 30, "num_mels": 6},
            {
                "columns": ["audio"],
                "sample_rate": 8000,
                "window_samples": 200,
                "num_mels": 9,
                "mel_scale": "htk",
                "output": "db",
            },
        ],
        "level": [{"columns": ["audio"]}, {"columns": ["audio"], "measure": "peak", "target_db": 0.0}],
        "cross": [
            {"columns": ["city", "count"], "keep": False},
            {"columns": ["city", "flag", "day"], "num_buckets": 7, "output": "index", "keep": False},
        ],
    }
    """Settings beside `kind`, over TRANSFORM_COLUMNS; one number column and one text column at the least, if it can."""

    packages: dict[str, str] = {"pretrained_tokens": "tokenizers"}
    """Kinds that need an optional package."""

    rounding: dict[str, float] = {"standardize": 1e-12, "normalize": 1e-12, "impute": 1e-12}
    """Kinds that add up floats: how far, relatively, two cuts of the rows may lie apart. Others: not at all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._examples = [{"kind": name, **fields} for fields in self.examples[name]]

    @classmethod
    def checks(cls) -> list[str]:
        """Names of all checks, for `pytest.mark.parametrize`."""
        return [name for name in vars(cls) if name.startswith("check_")]

    @classmethod
    def usable_examples(cls) -> dict[str, list[dict[str, Any]]]:
        """The examples of all kinds whose packages are installed."""
        return {
            name: fields
            for name, fields in cls.examples.items()
            if name not in cls.packages or find_spec(cls.packages[name]) is not None
        }

    def check_json(self) -> None:
        """What was fitted survives JSON to the last bit, and holds no NaN."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            text = json.dumps(fitted.state(), allow_nan=False)
            again = type(fitted).from_state(json.loads(text))
            assert json.dumps(again.state()) == text
            outcomes = [self._outcomes(each, inputs, columns) for each in (fitted, again)]
            assert all(_equal(a, b) for a, b in zip(*outcomes, strict=True))

    def check_cuts(self) -> None:
        """However the rows are cut into shards, empty ones too, the same is fitted."""
        for fields in self._examples:
            whole = self._fit(fields, [60])[0].state()
            for cuts in ([1, 60], [7, 7, 20, 59, 60], [0, 30, 60, 60]):
                cut = self._fit(fields, cuts)[0].state()
                _assert_same(cut, whole, self.rounding.get(self.name, 0.0))

    def check_rows_alone(self) -> None:
        """A row's numbers do not depend on its neighbours; no rows give no rows of the same shape."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            for column in self._filled(inputs):
                values = columns[column.name]
                whole = fitted.column(values, column)
                parts = [fitted.column(values[i : i + 1], column) for i in range(60)]
                assert np.array_equal(np.concatenate([np.asarray(part) for part in parts]), np.asarray(whole))
                assert np.asarray(fitted.column(values[:0], column)).shape == (0, *np.asarray(whole).shape[1:])

    def check_input_stays(self) -> None:
        """Applying changes neither the rows nor the state."""
        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            before, state = {name: values.copy() for name, values in columns.items()}, json.dumps(fitted.state())
            self._outcomes(fitted, inputs, columns)
            assert all(_equal(columns[name], values) for name, values in before.items())
            assert json.dumps(fitted.state()) == state

    def check_declared(self) -> None:
        """What `check` says of a column before any row is read is what comes out."""
        from raypipe.data.transforms import KINDS

        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            if KINDS[self.name].joint:
                continue
            for column in inputs:
                after = KINDS[self.name].check(self._spec(fields), column)
                values = fitted.column(columns[column.name], column)
                is_number = isinstance(values, np.ndarray)
                shape = values.shape[1:] if is_number else ()
                assert is_number == (after.dtype != "string")
                assert len(shape) == len(after.shape)
                assert all(wanted in (-1, size) for wanted, size in zip(after.shape, shape, strict=True))

    def check_missing(self) -> None:
        """A missing value is filled, or the row is refused by the column's name; it never becomes a number."""
        from raypipe.data.transforms import KINDS

        for fields in self._examples:
            fitted, inputs, columns = self._fit(fields, [60])
            for column in inputs:
                if column.dtype != "string" and columns[column.name].ndim > 1:
                    continue
                gap = np.array([None], object) if column.dtype == "string" else np.array([np.nan])
                one = {name: values[2:3] for name, values in columns.items()} | {column.name: gap}
                if KINDS[self.name].fills:
                    assert np.isfinite(np.asarray(fitted.column(gap, column), np.float64)).all()
                else:
                    with pytest.raises(DataError, match=column.name):
                        self._apply(fitted, inputs, one)

    def check_unknown(self) -> None:
        """A category that train has not is refused, or gives finite numbers, as the transform says."""
        for fields in self._examples:
            if not hasattr(self._spec(fields), "unknown") or fields.get("num_buckets"):
                continue
            for unknown in ("error", "ignore"):
                fitted, inputs, columns = self._fit({**fields, "unknown": unknown}, [60])
                for column in inputs:
                    if column.dtype == "bool":
                        continue
                    new = np.array(["Paris"], object) if column.dtype == "string" else np.array([99])
                    one = {name: values[2:3] for name, values in columns.items()} | {column.name: new}
                    if unknown == "ignore":
                        assert np.isfinite(self._apply(fitted, inputs, one)).all()
                    else:
                        with pytest.raises(DataError, match=rf"{column.name}.*(Paris|99)"):
                            self._apply(fitted, inputs, one)

    def _fit(self, fields: dict[str, Any], ends: list[int]) -> tuple[Any, list[Any], dict[str, np.ndarray]]:
        """Fitted on the rows cut at `ends`, the last being 60."""
        from raypipe.data.transforms import fitting
        from raypipe.records import Column
        from raypipe.testing.fakes import fit_columns

        inputs = [Column(name=name, **TRANSFORM_COLUMNS[name][0]) for name in fields["columns"]]
        columns = {name: TRANSFORM_COLUMNS[name][1] for name in fields["columns"]}
        starts = [0, *ends[:-1]]
        shards = [{name: v[a:b] for name, v in columns.items()} for a, b in zip(starts, ends, strict=True)]
        fitting.check_types([self._spec(fields)], inputs)
        return fit_columns([self._spec(fields)], inputs, shards), inputs, columns

    def _outcomes(self, fitted: Any, inputs: list[Any], columns: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Every column by itself, and all together where no value is missing."""
        found = [np.asarray(fitted.column(columns[column.name], column)) for column in inputs]
        return [*found, self._apply(fitted, inputs, columns)] if self._filled(inputs) == inputs else found

    def _filled(self, inputs: list[Any]) -> list[Any]:
        from raypipe.data.transforms import KINDS

        return [column for column in inputs if KINDS[self.name].fills or not column.nullable]

    def _apply(self, fitted: Any, inputs: list[Any], columns: dict[str, np.ndarray]) -> np.ndarray:
        return fitted.apply_exact(columns, inputs)

    def _spec(self, fields: dict[str, Any]) -> Any:
        return _TRANSFORM.validate_python(fields)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _assert_same(found: Any, expected: Any, rtol: float) -> None:
    """Equal JSON documents, floats to `rtol`."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key in expected:
            _assert_same(found[key], expected[key], rtol)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other, rtol)
    elif isinstance(expected, float):
        assert abs(found - expected) <= rtol * abs(expected), (found, expected)
    else:
        assert found == expected
