"""What a language model tells of texts, and how it adds up over rows, ranks and lengths."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.data.shards import encode_target, load_rows
from raypipe.data.spelling import Spelling
from raypipe.data.transforms.text import FIRST
from raypipe.errors import DataError
from raypipe.model.likelihood import Likelihood, likelihood
from raypipe.model.losses import next_token
from raypipe.model.measures import Measures
from raypipe.model.predictor import Predictor
from raypipe.model.tasks.language_model import LanguageModel
from raypipe.model.text_writer import Continuing
from raypipe.records import Column, DatasetVersion, Language, Signature, TrainResult
from raypipe.spec.model import GptModel
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_text
from raypipe.testing.served import model_version
from raypipe.train.order import TrainOrder
from tests.unit.train.runs import run_alone

LANGUAGE = Language(context_length=5, tokens=("a", "b", "c"))
SIGNATURE = Signature(
    inputs=(Column(name="text", dtype="string"),), task="language_model", target="text", language=LANGUAGE
)
TASK = LanguageModel(SIGNATURE)


class Guess(nn.Module):
    """The same for every token that follows: a fifth each."""

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids_BT.shape, 5)


def test_network_that_guesses_has_the_perplexity_of_its_vocabulary():
    ids = torch.tensor([[2.0, 3, 4, 2, 2, 2], [2, 3, 4, 0, 0, 0]])
    values = Likelihood(Guess())(ids).numpy()
    np.testing.assert_allclose(values, [[5 * math.log(1 / 5), 5], [2 * math.log(1 / 5), 2]], rtol=1e-6)
    metrics = TASK.metrics(TASK.measure(np.ones(2), values))
    assert metrics == {
        "perplexity": pytest.approx(5, rel=1e-6),
        "bits_per_character": pytest.approx(math.log2(5), rel=1e-6),
    }
    assert TASK.json_rows(values)[1]["perplexity"] == pytest.approx(5, rel=1e-6)


def test_loss_is_the_mean_over_tokens_and_likelihood_its_sum():
    torch.manual_seed(0)
    logits, asked = torch.randn(4, 5, 5), torch.randint(2, 5, (4, 5))
    each = nn.functional.cross_entropy(logits.transpose(1, 2), asked, reduction="none")
    torch.testing.assert_close(next_token(logits, asked), each.mean(dim=1))
    torch.testing.assert_close(next_token(logits, asked, reduction="mean"), each.mean())
    torch.testing.assert_close(likelihood(logits, asked)[:, 0], -each.sum(dim=1))


def test_metrics_of_parts_put_together_in_any_order_are_those_of_all_to_the_bit():
    random = np.random.default_rng(0)
    values = np.stack([-random.exponential(5, 60), random.integers(1, 6, 60)], axis=1).astype(np.float32)
    whole = TASK.metrics(TASK.measure(np.ones(60), values))
    parts = [TASK.measure(np.ones(len(p)), p) for p in np.split(random.permutation(values), [7, 30, 31])]
    assert TASK.metrics(reduce(Measures.__add__, parts)) == whole
    assert whole["perplexity"] == pytest.approx(math.exp(-values[:, 0].sum() / values[:, 1].sum()), rel=1e-5)


def test_perplexity_beyond_all_numbers_is_infinite_and_not_an_error():
    values = np.array([[-3e6, 1.0]], np.float32)
    assert TASK.metrics(TASK.measure(np.ones(1), values))["perplexity"] == math.inf


@pytest.mark.parametrize("tokens", [(), ("a", "a"), ("ab",), ("",)])
def test_forged_tokens_are_refused(tokens: tuple[str, ...]):
    language = LANGUAGE.model_copy(update={"tokens": tokens})
    assert "signature.language.tokens" in LanguageModel.problem(SIGNATURE.model_copy(update={"language": language}))
    assert "signature.language" in LanguageModel.problem(SIGNATURE.model_copy(update={"language": None}))


def test_neither_padding_nor_the_unknown_is_ever_written():
    class LikesNothing(nn.Module):
        def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
            return torch.tensor([9.0, 9.0, 0.0, 0.0, 0.0]).expand(*ids_BT.shape, 5)

    writer = Continuing(LikesNothing(), LANGUAGE)
    text = "".join(writer.write(writer.read("abca"), 40, seed=0))
    assert len(text) == 40 and set(text) == {"a", "b", "c"}
    with pytest.raises(DataError, match="'d', 'e'"):
        writer.read("abcded")


def test_predictor_reads_what_was_trained_and_its_engine_answers_as_the_network(tmp_path):
    store = LocalFolder(str(tmp_path))
    dataset = tiny_text(store, "the cat sat on the mat; a dog ran. " * 20)
    version = model_version(store, dataset, spec=GptModel(kind="gpt", dim=16, num_layers=1, num_heads=2))
    eager, auto = (Predictor.load(store, version.artifact, engine=engine) for engine in ("eager", "auto"))
    assert auto.engine.name == "traced", auto.engine
    rows = {"text": np.array(["the cat s", "a dog ran", "the", "t", "¿¡"], object)}
    np.testing.assert_allclose(auto.predict(rows).values, eager.predict(rows).values, rtol=1e-5, atol=1e-5)
    assert eager.predict(rows).values[:, 1].tolist() == [8, 8, 2, 0, 1]


MERGES = [(FIRST + ord("t"), FIRST + ord("h")), (258, FIRST + ord("e")), (FIRST + 0xC3, FIRST + 0xB6)]
"""`th`, `the` and `\u00f6`, a character of two bytes."""


def test_bits_a_byte_of_byte_pairs_rest_on_the_bytes_that_were_asked_for(tmp_path):
    store = LocalFolder(str(tmp_path))
    dataset = tiny_text(
        store, "the th\u00f6n then r\u00fchrt \u20ac the. " * 30, merges=MERGES, tokenizer="bpe", num_val=20
    )
    version = model_version(store, dataset, spec=GptModel(kind="gpt", dim=16, num_layers=1, num_heads=2))
    predictor = Predictor.load(store, version.artifact)
    rows = load_rows(store, dataset, "val")
    texts = [str(text) for text in rows.columns["text"]]

    told = predictor.judge(rows.columns, encode_target(rows.target, predictor.signature)).values

    language = dataset.signature.language
    assert language is not None
    nats, num_bytes, num_tokens = 0.0, 0, 0
    network = predictor._module.eval()
    for text in texts:
        ids = Spelling(language).ids(text)
        num_tokens += len(ids) - 1
        num_bytes += len(text.encode()) - {258: 2, 259: 3, 260: 2}.get(ids[0], 1)
        padded = torch.tensor([ids + [0] * (9 - len(ids))], dtype=torch.float32)
        with torch.no_grad():
            logits = network(padded[:, :-1])[0, : len(ids) - 1].double()
        nats -= float(logits.log_softmax(dim=1).gather(1, torch.tensor(ids[1:])[:, None]).sum())
    task = predictor.task
    whole = task.measure(np.ones(len(told)), told)
    assert int(whole.counts["bytes"]) == num_bytes > num_tokens == int(whole.counts["tokens"])
    assert task.metrics(whole)["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6)

    parts = [task.measure(np.ones(len(p)), p) for p in np.split(told[::-1], [3, 4, 11])]
    assert task.metrics(reduce(Measures.__add__, parts)) == task.metrics(whole)


def test_bits_of_byte_pairs_are_told_alike_in_training_and_of_bytes_alone(tmp_path):
    """With no merge a token is a byte: both tokenizers tell the same number, one by counting bytes, one tokens."""
    text = "so it is, \u00e4nd so it was. " * 30
    told: dict[str, float] = {}
    for name in ("byte", "bpe"):
        store = LocalFolder(str(tmp_path / name))
        merges = [] if name == "bpe" else None
        data = tiny_text(store, text, merges=merges, tokenizer=name, num_val=30)
        trained = learned(store, data)
        predictor = Predictor.load(store, trained.artifact)
        rows = load_rows(store, data, "val")
        values = predictor.judge(rows.columns, encode_target(rows.target, predictor.signature)).values
        found = predictor.task.metrics(predictor.task.measure(np.ones(len(values)), values))
        told[name] = trained.metrics["val_bits_per_byte"]
        assert told[name] == pytest.approx(found["bits_per_byte"], rel=1e-6)
        assert told[name] == pytest.approx(math.log2(found["perplexity"]), rel=1e-6)
    assert told["bpe"] > 0


def learned(store: LocalFolder, data: DatasetVersion) -> TrainResult:
    """A small GPT after an epoch."""
    spec = PipelineSpec.model_validate(
        {
            "name": "small",
            "data": {"task": "language_model", "source": {"format": "text_windows", "path": "t.txt"}},
            "model": {"kind": "gpt", "dim": 16, "num_layers": 1, "num_heads": 2},
            "train": {"epochs": 1, "global_batch_size": 8},
        }
    )
    return run_alone(TrainOrder(spec, data, store.uri, "r1", "runs/r1/train/artifact"))
