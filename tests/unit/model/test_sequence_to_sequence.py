"""What a model from sequence to sequence tells, how it is measured, and that it is judged by what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.data.shards import encode_target, load_rows
from raypipe.errors import ServeError
from raypipe.model import predictor as predictor_module
from raypipe.model.likelihood import behind
from raypipe.model.losses import next_token
from raypipe.model.measures import Measures
from raypipe.model.predictor import Predictor
from raypipe.model.tasks.sequence_to_sequence import SequenceToSequence
from raypipe.model.text_writer import Greedy
from raypipe.records import Column, DatasetVersion, Language, ModelVersion, Signature
from raypipe.spec.model import EncoderDecoderModel
from raypipe.spec.sequences import TargetTokens
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_pairs
from raypipe.testing.served import model_version

LANGUAGE = Language(context_length=3, tokens=("a", "b"))
SIGNATURE = Signature(
    inputs=(Column(name="s", dtype="string"),), task="sequence_to_sequence", target="y", language=LANGUAGE
)
TASK = SequenceToSequence(SIGNATURE)
END = 4
SPEC = EncoderDecoderModel(kind="encoder_decoder", dim=16, num_layers=1, num_heads=2)
WORDS = ["ab", "cab", "bee", "deaf", "face", "a", "bad", "cafe"]


def pairs(store: LocalFolder, target: TargetTokens | None = None) -> DatasetVersion:
    return tiny_pairs(store, [(word, word[::-1]) for word in WORDS * 3], num_val=8, num_test=8, target=target)


def version_of(store: LocalFolder, target: TargetTokens | None = None) -> ModelVersion:
    """Of a network that guesses far from evenly, so that it does not always answer the same."""
    from raypipe.model.build import build_model

    dataset = pairs(store, target)
    torch.manual_seed(4)
    module = build_model(SPEC, dataset.signature, dataset.feature_shape, None, transforms=dataset.transforms)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.6)
    return model_version(store, dataset, spec=SPEC, module=module)


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


def values_of(*rows: Sequence[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_answers_are_texts_with_the_probability_of_the_whole():
    values = values_of([3, 2, END, math.log(0.5)], [END, 0, 0, 0.0])
    assert TASK.json_rows(values) == [{"text": "ba", "probability": 0.5}, {"text": "", "probability": 1.0}]
    assert TASK.answers(values)["text"] == ["ba", ""]
    assert TASK.known_as(TASK.encoded(values)) == ["ba", ""]
    target = np.array([[3, 2, END], [2, END, 0]])
    assert TASK.is_wrong(target, values).tolist() == [False, True]
    assert TASK.metrics(TASK.measure(target, values)) == {"exact_match": 0.5}


def test_metrics_count_rows_and_tokens_and_merge_to_the_same_bits_in_any_order():
    random = np.random.default_rng(0)
    rows = [
        [2, END, 0, -0.1, *known]
        for known in zip(-random.exponential(3, 30), random.integers(0, 3, 30), random.integers(1, 4, 30), strict=True)
    ]
    values, target = values_of(*rows), np.array([[2, END, 0], [3, END, 0], [2, 2, END]] * 10)
    whole = TASK.metrics(TASK.measure(target, values))
    order = random.permutation(30)
    parts = [TASK.measure(target[some], values[some]) for some in np.split(order, [4, 5, 20])]
    assert TASK.metrics(reduce(Measures.__add__, parts)) == whole
    assert whole["exact_match"] == pytest.approx(1 / 3)
    assert whole["token_accuracy"] == pytest.approx(values[:, 5].sum() / values[:, 6].sum())
    assert whole["perplexity"] == pytest.approx(math.exp(-values[:, 4].sum() / values[:, 6].sum()), rel=1e-6)


def test_loss_counts_every_token_alike_and_padding_not_at_all():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 4, 6), torch.tensor([[2, 3, 4, 5], [2, 5, 0, 0], [5, 0, 0, 0]])
    each = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none").where(target != 0, 0.0)
    torch.testing.assert_close(next_token(logits, target), each.sum(dim=1) / 4)
    torch.testing.assert_close(next_token(logits, target, reduction="mean"), each.sum() / 12)


def test_exact_match_of_validation_is_that_of_the_answers(store: LocalFolder):
    """Behind true tokens each is the likeliest just where the whole answer is right."""
    dataset = pairs(store)
    predictor = Predictor.load(store, version_of(store).artifact)
    task, rows = predictor.task, load_rows(store, dataset, "train")
    features = torch.from_numpy(predictor.features(rows.columns))
    answered = task.encoded(predictor.predict(rows.columns).values)
    target = encode_target(rows.target, dataset.signature)
    target[::2] = answered[::2]  # half of them are right
    judged = predictor.judge(rows.columns, target).values
    assert isinstance(task, SequenceToSequence)
    with torch.no_grad():
        logits = predictor._module(behind(features, torch.from_numpy(target), task.num_outputs - 1))
        learned = task.learned(logits, torch.from_numpy(target)).numpy()
    assert task.metrics(task.measure(target, learned)) == pytest.approx(task.metrics(task.measure(target, judged)))
    assert task.is_wrong(target, learned).tolist() == task.is_wrong(target, judged).tolist()
    np.testing.assert_array_equal(judged[:, : answered.shape[1] + 1], predictor.predict(rows.columns).values)


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_answer_is_that_of_reading_all_again_and_of_the_writer_whoever_shares_the_call(
    tokenizer: str, store: LocalFolder
):
    target = TargetTokens.model_validate({"tokenizer": tokenizer, "max_length": 5})
    version = version_of(store, target)
    predictor = Predictor.load(store, version.artifact, engine="auto")
    assert predictor.engine.name == "eager" and predictor.writer is not None
    rows = {"source": np.array(WORDS, object)}
    values = predictor.predict(rows).values
    alone = [predictor.predict({"source": rows["source"][i : i + 1]}).values for i in range(len(WORDS))]
    np.testing.assert_allclose(np.concatenate(alone), values, rtol=1e-5, atol=1e-5)

    class Unknown(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return predictor._module(ids)

    language = predictor.signature.language
    assert language is not None
    with torch.inference_mode():
        again = Greedy(Unknown(), language)(torch.from_numpy(predictor.features(rows)))
    np.testing.assert_allclose(again.numpy(), values, rtol=1e-5, atol=1e-5)
    texts = [row["text"] for row in predictor.task.json_rows(values)]
    written = ["".join(predictor.writer.write(predictor.writer.read(word), 6, seed=0, temperature=0)) for word in WORDS]
    assert written == texts and len(set(texts)) > 1


def test_a_call_holds_as_many_answers_as_one_of_other_tasks_and_each_place_is_one(
    store: LocalFolder, monkeypatch: pytest.MonkeyPatch
):
    dataset = pairs(store, TargetTokens.model_validate({"max_length": 4}))
    predictor = Predictor.load(store, version_of(store, TargetTokens.model_validate({"max_length": 4})).artifact)
    assert predictor.task.num_places == 5, "the end is one"
    monkeypatch.setattr(predictor_module, "MAX_CALL_ROWS", 3 * 5)
    calls: list[int] = []
    predictor._module.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    rows = load_rows(store, dataset, "train")
    judged = predictor.judge(rows.columns, encode_target(rows.target, dataset.signature))
    assert max(calls) == 3 and len(judged.values) == len(rows)


def test_engine_that_the_file_names_is_refused_with_the_reason(store: LocalFolder):
    with pytest.raises(
        ServeError, match=r"serve\.engine: traced is refused: the model writes its answers token by token"
    ):
        Predictor.load(store, version_of(store).artifact, engine="traced")


@pytest.mark.parametrize(
    "fields",
    [{"tokens": ("a", "a")}, {"tokens": ("ab",)}, {"tokens": ()}, {"tokenizer": "byte"}, {"context_length": 1}],
)
def test_forged_tokens_are_refused(fields: dict[str, object]):
    language = LANGUAGE.model_copy(update=fields)
    problem = SequenceToSequence.problem(SIGNATURE.model_copy(update={"language": language}))
    assert "signature.language" in problem
    assert SequenceToSequence.problem(SIGNATURE) == ""
