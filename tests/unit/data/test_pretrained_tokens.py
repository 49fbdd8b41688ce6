"""Tokenizers that others trained: what their files become, where they are kept, and which files are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from raypipe.data.sources.listing import listed
from raypipe.data.sources.tokenizers import with_tokenizers
from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.fitting import check_types
from raypipe.errors import DataError
from raypipe.model.features import Features
from raypipe.records import Column
from raypipe.spec.data import DataSpec
from raypipe.spec.transforms import Transform
from raypipe.testing.contracts.transforms import TOKENIZER
from raypipe.testing.fakes import fit_columns

library: Any = pytest.importorskip("tokenizers", reason="needs tokenizers: pip install 'raypipe[tokenizers]'")

TEXT = Column(name="text", dtype="string")
TEXTS = np.array(["The cat sat on a mat, naïve 日本語 💡", "", "the the the the the the the the cat"], object)


def made(content: str = TOKENIZER, **fields: Any) -> FittedTransforms:
    fields = {"kind": "pretrained_tokens", "columns": ["text"], "file": "t.json", "max_length": 8, **fields}
    return fit_columns([TypeAdapter(Transform).validate_python({**fields, "content": content})], [TEXT], [])


def ids(fitted: FittedTransforms, texts: np.ndarray = TEXTS) -> list[list[int]]:
    return fitted.apply({"text": texts}, (TEXT,)).astype(int).tolist()


def trained(kind: str) -> str:
    corpus = ["The cat sat on the mat, the naïve cat.", "日本語の mat"] * 3
    models, trainers = library.models, library.trainers
    made, trainer = {
        "BPE": (models.BPE(unk_token="<unk>"), trainers.BpeTrainer(vocab_size=60, special_tokens=["<pad>", "<unk>"])),
        "Unigram": (
            models.Unigram(),
            trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>"),
        ),
    }[kind]
    tokenizer = library.Tokenizer(made)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
    tokenizer.decoder = library.decoders.Metaspace()
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer.to_str()


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(TOKENIZER), **fields})


def test_ids_are_the_librarys_shifted_behind_padding_or_as_in_the_file():
    expected = [library.Tokenizer.from_str(TOKENIZER).encode(text).ids for text in TEXTS]
    cut = [[*row[:7], 3] if len(row) > 8 else row for row in expected]  # the library keeps [SEP] as it cuts
    assert ids(made()) == [[i + 1 for i in row] + [0] * (8 - len(row)) for row in cut]
    assert ids(made(ids="file")) == [row + [1] * (8 - len(row)) for row in cut]
    assert ids(made(special_tokens=False))[1] == [0] * 8


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_other_kinds_of_tokenizers_give_the_librarys_ids(kind: str):
    content = trained(kind)
    theirs = library.Tokenizer.from_str(content)
    expected = [[i + 1 for i in theirs.encode(text).ids] for text in TEXTS]
    assert ids(made(content, max_length=64)) == [row + [0] * (64 - len(row)) for row in expected]


def test_networks_of_ours_learn_how_many_ids_there_are_where_0_is_padding():
    for fields, expected in (({}, 15), ({"ids": "file"}, None)):
        fitted = made(**fields)
        features = Features((8,), (TEXT,), fitted.state())
        assert features.vocabulary() == expected
        assert features.parts()[0].num_indices == (15 if expected else 14)


def test_version_and_model_keep_the_content_and_its_digest_and_need_no_path(tmp_path: Path):
    file = tmp_path / "tokenizer.json"
    file.write_text(TOKENIZER)
    (tmp_path / "a.csv").write_text("text,y\na,b\n")
    transform = {"kind": "pretrained_tokens", "columns": ["text"], "file": "tokenizer.json", "max_length": 8}
    fields = {"root": str(tmp_path), "source": {"format": "csv", "path": "a.csv"}, "target": "y"}
    spec = DataSpec.model_validate({**fields, "transforms": [transform]})
    read, before = with_tokenizers(spec), listed(spec)
    check_types(read.transforms, [TEXT])
    assert read.fingerprint() != spec.fingerprint()
    assert "##öln" not in json.dumps(read.model_dump(mode="json"), ensure_ascii=False)
    fitted = fit_columns(read.transforms, [TEXT], [])
    file.write_text(trained("BPE"))
    assert listed(spec) != before and with_tokenizers(spec).fingerprint() != read.fingerprint()
    file.unlink()
    again = FittedTransforms.from_state(json.loads(json.dumps(fitted.state())))
    assert ids(again) == ids(made())
    pinned = DataSpec.model_validate({**fields, "transforms": [{**transform, "sha256": "0" * 64}]})
    file.write_text(TOKENIZER)
    with pytest.raises(DataError, match=r"tokenizer\.json has SHA-256 .*, and 0{64} is wanted"):
        check_types(with_tokenizers(pinned).transforms, [TEXT])


SAFE = json.loads(TOKENIZER)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is no JSON"),
        ("\x80\x04}q\0.", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no tokenizer: it has no `model`"),
        (changed(auto_map={"AutoTokenizer": ["evil.py", None]}), "holds 'auto_map', which no tokenizer has"),
        (changed(normalizer={"type": "Custom"}), "has a normalizer of type 'Custom', which is code of its own"),
        (
            changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "PyPreTokenizer"}]}),
            "has a pre_tokenizer of type 'PyPreTokenizer'",
        ),
        (changed(model={**SAFE["model"], "vocab": "vocab.txt"}), "has a model 'WordPiece' without a vocabulary"),
        (changed(model={**SAFE["model"], "type": "Tiktoken"}), "has a model 'Tiktoken' without"),
        (changed(model={**SAFE["model"], "vocab_file": "s3://a/b"}), "refers to the outside: model has 'vocab_file'"),
        (changed(decoder={"type": "ByteLevel", "url": "http://a"}), "refers to the outside: decoder has 'url'"),
        (
            changed(model={**SAFE["model"], "vocab": {**SAFE["model"]["vocab"], "far": 2**24 - 1}}),
            "has ids up to 16,777,216; they must be below 16,777,216",
        ),
        (changed(added_tokens=[{"id": 2, "content": 3}]), "is no tokenizer that takes every text"),
        (changed(model={**SAFE["model"], "unk_token": "[NONE]"}), "is no tokenizer that takes every text"),
    ],
)
def test_file_that_is_no_tokenizer_or_more_than_one_is_refused_by_name(content: str, why: str):
    with pytest.raises(DataError) as caught:
        made(content)
    assert caught.value.message.startswith("data.transforms: t.json ") and why in caught.value.message


def test_file_that_is_no_text_or_too_large_or_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.csv").write_text("text,y\na,b\n")
    transform = {"kind": "pretrained_tokens", "columns": ["text"], "file": "m.json", "max_length": 8}
    fields = {
        "root": str(tmp_path),
        "source": {"format": "csv", "path": "a.csv"},
        "target": "y",
        "transforms": [transform],
    }
    spec = DataSpec.model_validate(fields)
    with pytest.raises(DataError, match=r"m\.json"):
        with_tokenizers(spec)
    (tmp_path / "m.json").write_bytes(b"\x80\x02\xff")
    with pytest.raises(DataError, match="is no JSON: it is no text"):
        with_tokenizers(spec)
    monkeypatch.setattr("raypipe.data.sources.tokenizers.MAX_BYTES", 2)
    with pytest.raises(DataError, match="has 3 bytes; 2 are read"):
        with_tokenizers(spec)


def test_without_padding_of_its_own_a_file_gives_shifted_ids_alone():
    content = trained("Unigram")
    with pytest.raises(DataError, match="has no token for padding") as caught:
        made(content, ids="file")
    assert "ids: shifted" in str(caught.value.hint)
    told = {**json.loads(content), "padding": {**PADDING, "pad_token": "<unk>"}}
    assert ids(made(json.dumps(told), ids="file", max_length=4))[1] == [0] * 4


PADDING = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}


def test_forged_state_is_refused(monkeypatch: pytest.MonkeyPatch):
    (state,) = made().state()
    other = base64.b64encode(zlib.compress(changed(version="2").encode())).decode()
    bomb = base64.b64encode(zlib.compress(bytes(40 * 2**20))).decode()
    digest = {"sha256": hashlib.sha256(TOKENIZER.encode()).hexdigest()}
    for zipped, why in (
        (other, "has SHA-256"),
        (bomb, "it has more than 33554432 bytes"),
        ("$$", "cannot be read"),
        ("AAAA", "cannot be read"),
    ):
        fitted = {"text": {**state["columns"]["text"], "zipped": zipped}}
        with pytest.raises(DataError, match=why):
            ids(FittedTransforms.from_state([{**state, **digest, "columns": fitted}]))
    for wrong in ({"num_ids": 3}, {"num_ids": 2**30}, {"padding": -1}):
        fitted = {"text": {**state["columns"]["text"], **wrong}}
        with pytest.raises((DataError, ValueError), match=r"id|ids"):
            ids(FittedTransforms.from_state([{**state, "columns": fitted}]))


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch):
    state = made().state()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for needs in (made, lambda: FittedTransforms.from_state(state)):
        with pytest.raises(DataError, match=r"needs tokenizers, .*: pip install 'raypipe\[tokenizers\]'"):
            needs()
