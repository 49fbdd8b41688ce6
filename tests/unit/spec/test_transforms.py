from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raypipe.spec.data import DataSpec
from raypipe.spec.transforms import OneHotTransform, Transform

TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)

TOKENS = {"kind": "tokens", "columns": ["x"], "max_length": 9}
MEL = {"kind": "log_mel", "columns": ["x"], "sample_rate": 8000}


def data_spec(**fields: Any) -> Any:
    return DataSpec.model_validate({"source": {"format": "csv", "path": "a.csv"}, "target": "y", **fields})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kind": "scale", "columns": ["x", "x"]}, r"names \['x'\] twice"),
        ({"kind": "min_max", "columns": ["x"], "feature_range": [1, 1]}, "each value must be larger"),
        ({"kind": "robust", "columns": ["x"], "quantile_range": [25, 75]}, "less than or equal to 1"),
        ({"kind": "clip", "columns": ["x"]}, "give either `min` and/or `max`, or `quantile_range`"),
        ({"kind": "clip", "columns": ["x"], "min": 0, "quantile_range": [0, 1]}, "give either"),
        ({"kind": "clip", "columns": ["x"], "min": 2, "max": 1}, r"min, max: found \[2.0, 1.0\]"),
        ({"kind": "impute", "columns": ["x"], "strategy": "median", "value": 1}, "`value` goes with"),
        ({"kind": "bucketize", "columns": ["x"]}, "give either `boundaries` or `num_buckets`"),
        ({"kind": "bucketize", "columns": ["x"], "boundaries": [1, 3, 2]}, r"boundaries: found \[1.0, 3.0, 2.0\]"),
        ({"kind": "ordinal", "columns": ["x"], "categories": ["a", "b", "a"]}, "names one twice"),
        ({"kind": "cross", "columns": ["x"]}, "at least 2 items"),
        ({"kind": "date_parts", "columns": ["x"], "parts": ["century"]}, "Input should be 'year'"),
        ({"kind": "tokens", "columns": ["x"], "tokenizer": "word", "max_length": 9}, "word needs max_vocabulary"),
        ({**TOKENS, "tokenizer": "byte", "max_vocabulary": 300}, "always below 258; leave it out"),
        ({**TOKENS, "tokenizer": "bpe", "max_vocabulary": 257}, "258 ids before the first merge"),
        ({"kind": "normalize", "columns": ["x"], "mean": [1]}, "mean and std are given together"),
        ({"kind": "normalize", "columns": ["x"], "mean": [1], "std": [0]}, "greater than 0"),
        ({**MEL, "high_hz": 4001}, "high_hz: found 4001; must not exceed half the sample rate, 4000"),
        ({**MEL, "low_hz": 3000, "high_hz": 2000}, r"low_hz, high_hz: found \[3000.0, 2000.0\]"),
    ],
)
def test_transform_that_cannot_mean_anything_is_refused(fields: dict[str, Any], told: str):
    with pytest.raises(ValidationError, match=told):
        TRANSFORM.validate_python(fields)


def test_policy_for_unknown_categories_holds_where_a_transform_says_nothing():
    hot, own = {"kind": "one_hot", "columns": ["a"]}, {"kind": "ordinal", "columns": ["b"], "unknown": "error"}
    scale = {"kind": "scale", "columns": ["c"]}
    ignoring = data_spec(policy={"unknown_categories": "ignore"}, transforms=[hot, own, scale])
    assert [getattr(t, "unknown", None) for t in ignoring.transforms] == ["ignore", "error", None]
    assert [getattr(t, "unknown", None) for t in data_spec(transforms=[hot, own]).transforms] == ["error", "error"]
    built = OneHotTransform(kind="one_hot", columns=["a"])
    said = OneHotTransform(kind="one_hot", columns=["b"], unknown="error")
    ignoring = data_spec(policy={"unknown_categories": "ignore"}, transforms=[built, said])
    assert [t.unknown for t in ignoring.transforms] == ["ignore", "error"]


def test_spec_with_a_policy_means_the_same_after_it_was_written_and_read_again():
    spec = data_spec(policy={"unknown_categories": "ignore"}, transforms=[{"kind": "one_hot", "columns": ["a"]}])
    assert DataSpec.model_validate(spec.model_dump(mode="json")).fingerprint() == spec.fingerprint()


@pytest.mark.parametrize("policy", [{"unknown_categories": "guess"}, {"extra_columns": "maybe"}, {"nulls": 1}, 7])
def test_policy_that_is_none_is_refused(policy: Any):
    with pytest.raises(ValidationError, match="policy"):
        data_spec(policy=policy, transforms=[{"kind": "one_hot", "columns": ["a"]}])
