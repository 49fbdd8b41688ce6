"""A text in bytes and merged byte pairs, from its file through shards, batch inference and requests."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import write_csv

from raypipe.batch.reading import source_fields
from raypipe.batch.stage import predict_batch
from raypipe.data.shards import encode_target, load_rows
from raypipe.data.spelling import Spelling, num_ids
from raypipe.data.stage import prepare
from raypipe.data.target_text import target_text
from raypipe.records import BatchOutput, DatasetVersion
from raypipe.runtime.context import RunContext
from raypipe.spec.batch import BatchSpec
from raypipe.spec.data import DataSpec
from raypipe.spec.model import GptModel
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context
from raypipe.testing.served import ask, model_app, model_version

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

WORDS = ["the ", "cät ", "sat ", "on ", "mat; ", "a ", "dog ", "ran — ", "日本 ", "\n"]
TEXT = "".join(f"{word}{i} " for i, word in enumerate(np.random.default_rng(0).choice(WORDS, 2000)))
"""Its numbers make every window another one."""
SOURCES: dict[str, dict[str, Any]] = {"byte": {}, "bpe": {"max_vocabulary": 290}}


@pytest.fixture
def ctx(ray_cluster: SimpleNamespace, tmp_path: Path) -> RunContext:
    return run_context(open_store(str(tmp_path / "store")))


def spec_of(folder: Path, tokenizer: str) -> DataSpec:
    source = {"format": "text_windows", "path": "text.txt", "context_length": 16, "tokenizer": tokenizer}
    fields = {"task": "language_model", "root": str(folder), "source": {**source, **SOURCES[tokenizer]}}
    return DataSpec.model_validate({**fields, "split": {"val_frac": 0.1, "test_frac": 0.1}})


def texts_of(ctx: RunContext, dataset: DatasetVersion, split: str) -> list[str]:
    return list(load_rows(ctx.store, dataset, split).columns["text"])


def answered(output: BatchOutput) -> pa.Table:
    store = open_store(output.output)
    lines = store.read(output.shards_key).splitlines()
    return pa.concat_tables([pq.read_table(io.BytesIO(store.read(json.loads(line)["key"]))) for line in lines])


@pytest.mark.parametrize("tokenizer", SOURCES)
def test_text_is_cut_alike_for_training_batch_and_requests(tokenizer: str, ctx: RunContext, tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT)
    dataset = prepare(spec_of(tmp_path, tokenizer), ctx)
    assert prepare(spec_of(tmp_path, tokenizer), ctx) == dataset
    language = dataset.signature.language
    assert language is not None and language.tokenizer == tokenizer
    assert num_ids(language) == SOURCES[tokenizer].get("max_vocabulary", 258)
    texts = [text for split in ("train", "val", "test") for text in texts_of(ctx, dataset, split)]
    assert sorted("".join(texts)) == sorted(TEXT), "no character is lost, and none is there twice"
    assert all(len(Spelling(language).ids(text)) <= 17 for text in texts)

    version = model_version(ctx.store, dataset, spec=GptModel(kind="gpt", dim=16, num_layers=1, num_heads=2))
    given = source_fields({"format": "text_windows", "path": str(tmp_path / "text.txt")}, dataset.signature.reading)
    table = answered(
        predict_batch(BatchSpec.model_validate({"source": given, "output": str(tmp_path / "out")}), version, ctx)
    )
    assert "".join(table["text"].to_pylist()) == TEXT
    assert sorted(table["text"].to_pylist()) == sorted(texts)
    app = model_app(ctx.store, version)
    rows = [{"text": text} for text in table["text"].to_pylist()[:20]]
    told = json.loads(bytes(ask(app, "POST", "/predict", json.dumps({"instances": rows}).encode()).body))["predictions"]
    by_file = table["prediction"].to_numpy()[:20]
    np.testing.assert_allclose([row["perplexity"] for row in told], by_file, rtol=1e-5)


def test_targets_of_byte_pairs_come_back_from_shards_as_they_were(ctx: RunContext, tmp_path: Path):
    random = np.random.default_rng(1)
    rows = ["".join(random.choice(WORDS[:8], 5)).strip() for _ in range(400)]
    write_csv(pa.table({"said": rows, "meant": [row[::-1] for row in rows]}), tmp_path / "rows.csv")
    fields: dict[str, Any] = {
        "task": "sequence_to_sequence",
        "root": str(tmp_path),
        "source": {"format": "csv", "path": "rows.csv"},
        "target": "meant",
        "target_tokens": {"tokenizer": "bpe", "max_vocabulary": 300, "max_length": 40},
        "transforms": [
            {"kind": "tokens", "columns": ["said"], "tokenizer": "bpe", "max_length": 40, "max_vocabulary": 300}
        ],
        "split": {"val_frac": 0.1, "test_frac": 0.1},
    }
    dataset = prepare(DataSpec.model_validate(fields), ctx)
    language = dataset.signature.language
    assert language is not None and language.merges
    for split in ("train", "test"):
        targets = load_rows(ctx.store, dataset, split).target
        ids = encode_target(targets, dataset.signature)
        assert target_text(language, "meant").texts(ids) == list(targets)
        assert (ids != 0).sum() < sum(len(text.encode()) for text in targets), "pairs were merged"
