"""What `task: sequence_to_sequence` makes of a file, and what it says where the file does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec
from raypipe.spec.pipeline import PipelineSpec

TOKENS = {"kind": "tokens", "columns": ["said"], "tokenizer": "char", "max_length": 9, "max_vocabulary": 50}
DATA = {
    "task": "sequence_to_sequence",
    "source": {"format": "csv", "path": "t.csv"},
    "target": "meant",
    "target_tokens": {"max_length": 5},
    "transforms": [TOKENS],
}


def described(**fields: Any) -> DataSpec:
    return DataSpec.model_validate({**DATA, **fields})


def test_the_column_that_is_cut_into_tokens_is_read_and_its_misfits_are_refused():
    spec = described()
    assert spec.features == ["said"]
    (tokens, target) = spec.learned_transforms
    assert (tokens.columns, tokens.refuse) == (["said"], ["empty", "too_long", "unknown"])  # pyright: ignore
    assert (target.columns, target.refuse, target.max_length) == (["meant"], ["too_long", "unknown"], 5)  # pyright: ignore
    assert DataSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_dataset_versions_that_were_made_before_there_were_such_fields_stay():
    tokens = {**TOKENS, "columns": ["x"]}
    plain = DataSpec.model_validate({"source": DATA["source"], "target": "y", "transforms": [tokens]})
    fields = plain.model_dump(mode="json")
    del fields["target_tokens"], fields["transforms"][0]["refuse"]
    assert plain.fingerprint("more") == fingerprint(fields, "more")
    refusing = DataSpec.model_validate({**plain.model_dump(), "transforms": [{**tokens, "refuse": ["empty"]}]})
    assert refusing.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize(
    ("fields", "refuse"),
    [({"refuse": ["empty"]}, ["empty"]), ({"tokenizer": "word"}, ["empty", "too_long"]), ({"refuse": []}, [])],
)
def test_what_is_refused_can_be_said_and_words_may_be_unknown(fields: dict[str, Any], refuse: list[str]):
    (tokens,) = described(transforms=[{**TOKENS, **fields}]).transforms
    assert tokens.refuse == refuse  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_tokens": None}, "needs target_tokens, e.g. target_tokens: {tokenizer: char, max_length: 64}"),
        ({"target_tokens": {"tokenizer": "word", "max_length": 5}}, "'char', 'byte' or 'bpe'"),
        ({"target_tokens": {"tokenizer": "bpe", "max_length": 5}}, "max_vocabulary goes with tokenizer: bpe"),
        ({"target_tokens": {"max_vocabulary": 300, "max_length": 5}}, "found with tokenizer: char"),
        ({"transforms": []}, "reads one text, cut into tokens by one transform; found 0 transforms"),
        ({"transforms": [TOKENS, TOKENS]}, "found 2 transforms, 2 of them tokens"),
        ({"transforms": [{**TOKENS, "columns": ["said", "more"]}]}, "found a tokens transform of several columns"),
        ({"transforms": [{"kind": "one_hot", "columns": ["said"]}]}, "found another one"),
        ({"features": ["said", "age"]}, r"reads the column of its tokens transform, \['said'\]; leave features out"),
        ({"transforms": [{**TOKENS, "columns": ["meant"]}]}, "become tokens by data.target_tokens, so leave it out"),
        ({"split": {"kind": "stratified"}}, "the target of task: sequence_to_sequence has none"),
        ({"task": "classification"}, "target_tokens .* needs task: sequence_to_sequence"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_to_write(fields: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        described(**fields)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (DATA, "mlp", "model.kind: mlp does not fit data.task: sequence_to_sequence; use encoder_decoder or import"),
        (DATA, "gpt", "use encoder_decoder or import"),
        (
            {"source": {"format": "sklearn", "dataset": "iris"}, "target": "target"},
            "encoder_decoder",
            "use another kind, or set data.task: sequence_to_sequence",
        ),
    ],
)
def test_a_network_of_another_task_is_refused(data: dict[str, Any], kind: str, words: str):
    with pytest.raises(ValidationError, match=words):
        PipelineSpec.model_validate({"name": "t", "data": data, "model": {"kind": kind}})
