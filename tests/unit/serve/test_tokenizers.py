"""Models that write bytes or merged byte pairs: what is read is the same from shards, tables and requests, and what is
written is text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raypipe.data.shards import encode_target, load_rows
from raypipe.data.spelling import Spelling
from raypipe.data.target_text import target_text
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.runtime import seeds
from raypipe.serve.app import ModelApp
from raypipe.serve.checker import columns_of
from raypipe.serve.direct import Direct
from raypipe.spec.model import GptModel
from raypipe.spec.sequences import TargetTokens
from raypipe.spec.train import TrainSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_text
from raypipe.testing.served import ask, listening, model_app, model_version
from raypipe.train.rows import World
from raypipe.train.shares import open_shares
from tests.unit.model.test_sequence_to_sequence import WORDS, version_of

TEXT = "the cat sät on the mat; a dog ran — 日本. " * 40
MERGES = [(118, 106), (258, 103), (34, 259), (34, 99)]
"""th, the, blank the, blank a."""
BPE = TargetTokens(tokenizer="bpe", max_vocabulary=262, max_length=8)
PAIRED = ["byte", "bpe"]


def text_of(store: LocalFolder, tokenizer: Any) -> DatasetVersion:
    return tiny_text(store, TEXT, context_length=12, tokenizer=tokenizer, merges=MERGES if tokenizer == "bpe" else None)


def replica(store: LocalFolder, tokenizer: str) -> ModelApp:
    spec = GptModel(kind="gpt", dim=16, num_layers=1, num_heads=2)
    return model_app(store, model_version(store, text_of(store, tokenizer), spec=spec))


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


def post(app: ModelApp, path: str, body: Any) -> Any:
    answer = ask(app, "POST", path, json.dumps(body).encode())
    assert answer.status_code == 200, bytes(answer.body)
    return json.loads(bytes(answer.body))


@pytest.mark.parametrize("tokenizer", PAIRED)
def test_training_batch_and_requests_read_the_same_ids(tokenizer: str, store: LocalFolder):
    app, dataset = replica(store, tokenizer), text_of(store, tokenizer)
    share = open_shares(store, dataset, TrainSpec(epochs=1, global_batch_size=4), World()).train
    batches = list(share.batches(4, seeds.derive(0, "shuffle", 1, 0), first_step=0))
    trained_BT = np.concatenate([np.asarray(batch.rows.features) for batch in batches])
    texts = load_rows(store, dataset, "train").columns["text"]
    table_BT = Predictor.load(store, app.model.artifact).features({"text": texts})
    rows = [{"text": text} for text in texts]
    asked_BT = app.predictor.features(columns_of(rows, app.signature, max_rows=len(rows)))
    np.testing.assert_array_equal(np.asarray(table_BT), np.asarray(asked_BT))
    read_BT = np.asarray(table_BT)[:, :-1].astype(np.float32)
    np.testing.assert_array_equal(np.unique(trained_BT.astype(np.float32), axis=0), np.unique(read_BT, axis=0))
    language = dataset.signature.language
    assert language is not None
    spelling = Spelling(language)
    assert ["".join(spelling.pieces(row)) for row in np.asarray(table_BT).astype(int).tolist()] == texts.tolist()


@pytest.mark.parametrize("tokenizer", PAIRED)
def test_every_way_to_ask_tells_the_same_bits(tokenizer: str, store: LocalFolder):
    app = replica(store, tokenizer)
    texts = load_rows(store, text_of(store, tokenizer), "test").columns["text"]
    offline = Predictor.load(store, app.model.artifact).predict({"text": texts}).values
    rows = [{"text": text} for text in texts]
    by_json = post(app, "/predict", {"instances": rows})["predictions"]
    by_columns = post(app, "/v1/models/tiny:predict", {"inputs": {"text": texts.tolist()}})["outputs"]
    for place, name in enumerate(("log_likelihood", "num_tokens")):
        told = np.array([row[name] for row in by_json], np.float32)
        np.testing.assert_array_equal(told, np.array(by_columns[name], np.float32))
        np.testing.assert_allclose(told, offline[:, place], rtol=1e-6)


@pytest.mark.parametrize("tokenizer", PAIRED)
def test_any_prompt_is_gone_on_with_and_the_answer_is_text(tokenizer: str, store: LocalFolder):
    app = replica(store, tokenizer)
    body = {"prompt": "the Ω — 猫", "max_new_tokens": 30, "seed": 3}
    whole = post(app, "/generate", body)
    assert whole == post(app, "/generate", body) and len(whole["text"]) > 5
    with listening(Direct(app)) as address:
        streamed = httpx.post(f"{address}/generate", json={**body, "stream": True})
    lines = [line[6:] for line in streamed.text.split("\n") if line.startswith('data: {"token"')]
    assert "".join(json.loads(line)["token"] for line in lines) == whole["text"]


def test_targets_of_byte_pairs_are_the_same_from_shards_and_tables_and_are_answered_as_text(store: LocalFolder):
    version = version_of(store, BPE)
    app = model_app(store, version)
    language = app.signature.language
    assert language is not None and language.tokenizer == "bpe" and language.merges
    ids = encode_target(np.array(WORDS, object), app.signature)
    assert target_text(language, "y").texts(ids) == WORDS
    assert ids.shape[1] == 9 and (ids[:, 8] == 0).all(), "merged, they are shorter than their letters"
    offline = Predictor.load(store, version.artifact)
    expected = offline.task.json_rows(offline.predict({"source": np.array(WORDS, object)}).values)
    told = post(app, "/predict", {"instances": [{"source": word} for word in WORDS]})["predictions"]
    assert [row["text"] for row in told] == [row["text"] for row in expected]
    one = post(app, "/generate", {"prompt": WORDS[0]})
    assert one["text"] == told[0]["text"]


def test_forged_byte_pairs_are_refused_as_the_model_is_loaded(store: LocalFolder):
    from raypipe.model.tasks.language_model import LanguageModel

    signature = text_of(store, "bpe").signature
    assert signature.language is not None and not LanguageModel.problem(signature)
    forged = signature.language.model_copy(update={"merges": ((2, 9999),)})
    assert "merges" in LanguageModel.problem(signature.model_copy(update={"language": forged}))
