"""The loop learns a text as a loop written by hand does, and no split of the work changes what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raypipe.data.shards import load_rows
from raypipe.data.spelling import Spelling
from raypipe.model.build import build_model
from raypipe.records import DatasetVersion, TrainResult
from raypipe.runtime import seeds
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_text
from raypipe.train.loop import run
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from raypipe.train.shares import open_shares

pytestmark = pytest.mark.thorough

STEPS_PER_EPOCH, EPOCHS, BATCH = 25, 3, 16


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


@pytest.fixture
def dataset(store: LocalFolder) -> DatasetVersion:
    random = np.random.default_rng(0)
    words = random.choice(["to be ", "or not ", "that is ", "the question. ", "\nwhether ", "'tis nobler "], 2000)
    num_rows = STEPS_PER_EPOCH * BATCH + 80
    return tiny_text(store, "".join(words)[: 32 * num_rows + 1], context_length=32, num_val=80, num_test=0)


def spec_of(**train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "text",
            "data": {
                "task": "language_model",
                "source": {"format": "text_windows", "path": "t.txt", "context_length": 32},
            },
            "model": {"kind": "gpt", "dim": 32, "num_layers": 2, "num_heads": 2},
            "train": {
                "epochs": EPOCHS,
                "global_batch_size": BATCH,
                "optimizer": {"kind": "adamw", "lr": 0.01, "weight_decay": 0.1},
                "clip_grad_norm": 1.0,
                **train,
            },
        }
    )


def trained(store: LocalFolder, dataset: DatasetVersion, run_id: str, **train: Any) -> TrainResult:
    order = TrainOrder(spec_of(**train), dataset, store.uri, run_id, f"runs/{run_id}/train/artifact")
    return run(order, World(), lambda event: None)


def by_hand(store: LocalFolder, dataset: DatasetVersion) -> float:
    """Perplexity on val after as many steps of a loop as nanoGPT's, from the same first weights, over the same rows in
    the same order: what another order gives differs by more than two loops may."""
    assert dataset.signature.language is not None
    spelling = Spelling(dataset.signature.language)
    val = torch.tensor([spelling.ids(text) for text in load_rows(store, dataset, "val").columns["text"]])
    share = open_shares(store, dataset, spec_of().train, World()).train
    torch.manual_seed(seeds.derive(0, "weights"))
    model = build_model(spec_of().model, dataset.signature, dataset.feature_shape, None, transforms=dataset.transforms)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    def loss_of(read_BT: Tensor, asked_BT: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(model(read_BT).flatten(0, 1), asked_BT.flatten())

    model.train()
    for epoch in range(1, EPOCHS + 1):
        for batch in share.batches(BATCH, seeds.derive(0, "shuffle", epoch, 0), first_step=0):
            optimizer.zero_grad()
            loss_of(batch.rows.features, batch.rows.target).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(loss_of(val[:, :-1], val[:, 1:]).exp())


def test_perplexity_is_that_of_a_loop_by_hand_at_equal_steps(store: LocalFolder, dataset: DatasetVersion):
    result = trained(store, dataset, "ours")
    assert result.num_steps == STEPS_PER_EPOCH * EPOCHS
    assert result.metrics["val_perplexity"] < 2.5  # it has learned some words
    assert result.metrics["val_perplexity"] == pytest.approx(by_hand(store, dataset), rel=0.005)
    assert np.exp(result.metrics["val_loss"]) == pytest.approx(result.metrics["val_perplexity"], rel=1e-5)


def test_micro_batches_and_rows_from_the_store_change_nothing(store: LocalFolder, dataset: DatasetVersion):
    whole, parts, streamed = (
        trained(store, dataset, run_id, epochs=1, **fields)
        for run_id, fields in (
            ("whole", {}),
            ("parts", {"micro_batch_rows": 4}),
            ("streamed", {"rows": {"resident_bytes": 0}}),
        )
    )
    assert streamed.artifact.digest == whole.artifact.digest
    for name, value in whole.metrics.items():
        assert parts.metrics[name] == pytest.approx(value, rel=1e-5), name


def test_early_stopping_takes_a_perplexity_that_rises_for_worse(store: LocalFolder, dataset: DatasetVersion):
    stopping = {"metric": "val_perplexity", "patience_epochs": 1}
    diverging = {"kind": "sgd", "lr": 30.0}
    result = trained(store, dataset, "early", epochs=6, early_stopping=stopping, optimizer=diverging)
    found = [epoch.metrics["val_perplexity"] for epoch in result.history]
    assert result.stopped_early and found[-1] >= min(found)
    assert result.best_epoch == 1 + found.index(min(found))


def test_bfloat16_learns_too(store: LocalFolder, dataset: DatasetVersion):
    assert trained(store, dataset, "half", epochs=1, precision="bfloat16").metrics["val_perplexity"] < 12
