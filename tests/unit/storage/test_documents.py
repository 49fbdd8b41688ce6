"""A stored document is what was written under its key, or it is refused; older ones without a digest are read."""

from __future__ import annotations

import json
import random

import pytest

from raypipe.errors import DocumentError, ObjectMissing
from raypipe.records import ArtifactRef, EvaluationReport
from raypipe.storage.documents import is_sealed, parse, read_document, read_mapping, seal, write_document
from raypipe.testing.fakes import MemoryStore

KEY = "runs/r1/evaluate/record.json"
REPORT = EvaluationReport(
    artifact=ArtifactRef(key="runs/r1/train/artifact", digest="ab" * 32),
    dataset="d1",
    num_rows=10,
    metrics={"accuracy": 0.97, "f1_macro": 1e-7},
)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    write_document(store, KEY, REPORT)
    return store


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_document_reads_back_as_it_was_written_and_is_json_for_everybody(store: MemoryStore):
    assert read_document(store, KEY, EvaluationReport) == REPORT
    assert json.loads(store.read(KEY))["metrics"] == {"accuracy": 0.97, "f1_macro": 1e-7}


def test_mapping_reads_back_as_it_was_written(store: MemoryStore):
    write_document(store, "a.json", {"b": [1, None, "ü"], "a": {}})
    assert read_mapping(store, "a.json") == {"a": {}, "b": [1, None, "ü"]}


def test_every_single_bit_changed_is_refused(store: MemoryStore):
    data = store.read(KEY)
    for bit in range(8 * len(data)):
        with pytest.raises(DocumentError, match="is damaged"):
            parse(store, KEY, flipped(data, bit), EvaluationReport)


def test_any_bit_of_a_mapping_changed_is_refused(store: MemoryStore):
    data = seal("a.json", {"train": {"lr": 1e-05, "name": "é"}, "seed": 0})
    for bit in range(8 * len(data)):
        store.write("a.json", flipped(data, bit))
        with pytest.raises(DocumentError, match="is damaged"):
            read_mapping(store, "a.json")


def test_every_length_it_may_be_cut_to_is_refused(store: MemoryStore):
    data = store.read(KEY)
    for length in range(len(data)):
        with pytest.raises(DocumentError, match="is damaged"):
            parse(store, KEY, data[:length], EvaluationReport)


def test_document_under_another_key_is_refused(store: MemoryStore):
    store.write("runs/r2/evaluate/record.json", store.read(KEY))
    with pytest.raises(DocumentError, match="copied from another place"):
        read_document(store, "runs/r2/evaluate/record.json", EvaluationReport)


def test_document_of_an_older_raypipe_has_no_digest_and_is_read(store: MemoryStore):
    store.write(KEY, REPORT.to_json())
    assert not is_sealed(store.read(KEY))
    assert read_document(store, KEY, EvaluationReport) == REPORT
    store.write("a.json", b'{"run_id": "r1"}')
    assert read_mapping(store, "a.json") == {"run_id": "r1"}


def test_whole_document_of_another_raypipe_says_so_and_what_differs(store: MemoryStore):
    write_document(store, KEY, {**REPORT.model_dump(mode="json"), "shap": 1})
    with pytest.raises(DocumentError, match=r"from another version of raypipe than this one \(shap: Extra inputs"):
        read_document(store, KEY, EvaluationReport)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"null", b'"sha256"'])
def test_what_is_no_document_is_refused(store: MemoryStore, data: bytes):
    store.write("a.json", data)
    with pytest.raises(DocumentError, match="is damaged"):
        read_mapping(store, "a.json")


def test_document_that_is_not_there_is_missing(store: MemoryStore):
    with pytest.raises(ObjectMissing):
        read_document(store, "nowhere.json", EvaluationReport)


def test_random_damage_of_many_bytes_is_refused(store: MemoryStore):
    data, draw = store.read(KEY), random.Random(0)
    for _ in range(400):
        start = draw.randrange(len(data) - 8)
        changed = data[:start] + draw.randbytes(8) + data[start + 8 :]
        with pytest.raises(DocumentError, match="is damaged"):
            parse(store, KEY, changed, EvaluationReport)


@pytest.mark.parametrize("data", [b'{"a":' + b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"], ids=["deep", "digits"])
def test_document_that_python_cannot_read_is_damaged(store: MemoryStore, data: bytes):
    store.write("a.json", data)
    with pytest.raises(DocumentError, match="is damaged: not a JSON mapping"):
        read_mapping(store, "a.json")
