"""Which text belongs to another one, written token by token.  Shape letters: B rows, T tokens of a target, V ids."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from raypipe.data.next_tokens import with_target
from raypipe.data.table.sums import sums
from raypipe.data.target_text import TargetText, end_of, target_text
from raypipe.model.measures import Measures
from raypipe.model.metrics import perplexity
from raypipe.model.tasks.base import Features, OutputColumn, Values
from raypipe.model.tasks.tokens import NextToken, language_problem
from raypipe.records import Language, Signature, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raypipe.model.text_writer import TextWriter

NUM_KNOWN = 3
"""What is told of the true target: the natural logarithm of its probability, its tokens that were the likeliest at
their place behind the true ones, and its tokens, the end among them."""


class SequenceToSequence(NextToken):
    """A network gives a logit an id, at each place of the target; the model tells the text whose every token is the
    likeliest behind those before it.

    Values are [B, T + 1]: the answer's ids, and the natural logarithm of its probability; where the truth is known,
    [B, T + 1 + NUM_KNOWN].
    """

    name = "sequence_to_sequence"
    is_one_call: ClassVar[bool] = False

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.columns = (
            OutputColumn("text", "answer", "string"),
            OutputColumn("probability", "confidence", "float32", is_probability=True),
        )

    @staticmethod
    def num_ids(language: Language) -> int:
        return end_of(language) + 1

    @staticmethod
    def problem(signature: Signature) -> str:
        return language_problem(signature, shortest=2)

    @cached_property
    def _written(self) -> TargetText:
        return target_text(self._language, self.signature.target_text)

    def read_and_compared(
        self, features: NDArray[np.float32], target: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        return with_target(features, target, self._written.end), target

    def asked(self, network: nn.Module) -> nn.Module:
        from raypipe.model.text_writer import Greedy

        return Greedy(network, self._language)

    def judged(self, network: nn.Module, features: Tensor, target: NDArray[Any], values: Values) -> Values:
        import torch

        from raypipe.model.likelihood import behind, known_target

        target_BT = torch.from_numpy(target).to(features.device)
        logits_BTV = network(behind(features, target_BT, self._written.end)).float()
        return np.concatenate([values, known_target(logits_BTV, target_BT).cpu().numpy()], axis=1)

    def writer(self, network: nn.Module, features: Features, device: str) -> TextWriter:
        from raypipe.model.text_writer import Answering

        (column,) = self.signature.inputs
        return Answering(network, self._written, self._language, column.name, features, device)

    def learned(self, output: Tensor, target: Tensor) -> Tensor:
        """Behind each of the true tokens the likeliest one: the answer would be right where all of these are."""
        import torch

        from raypipe.model.likelihood import known_target, likeliest, likelihood

        written_BT = likeliest(output).where(target != 0, 0)
        probability = likelihood(output, written_BT)[:, :1]
        return torch.cat([written_BT.float(), probability, known_target(output, target)], dim=1)

    def answer(self, column: OutputColumn, values: Values) -> Any:
        return self.confidence(values) if column.role == "confidence" else self.known_as(self.encoded(values))

    def json_rows(self, values: Values) -> list[dict[str, Any]]:
        texts = self.known_as(self.encoded(values))
        return [{"text": text, "probability": sure} for text, sure in zip(texts, self.confidence(values), strict=True)]

    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[np.float64]:
        """Minus the natural logarithm of the true target's probability; where it is not known, 1 for a wrong answer."""
        if values.shape[1] == self._num_answered:
            return self.is_wrong(target_B, values).astype(np.float64)
        return -values[:, self._num_answered].astype(np.float64)

    def encoded(self, values: Values) -> NDArray[np.int64]:
        """Ids [B, T]."""
        return values[:, : self.target_shape[0]].astype(np.int64)

    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[np.bool_]:
        return (self.encoded(values) != target_B).any(axis=1)

    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        return [*self._written.texts(encoded_B)]

    def confidence(self, values: Values) -> NDArray[np.float32]:
        """Probability of the whole answer."""
        return np.exp(np.minimum(values[:, self._num_answered - 1], 0)).astype(np.float32)

    @property
    def _num_answered(self) -> int:
        return self.target_shape[0] + 1

    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        each_B = np.ones(len(values), np.int64) if times_B is None else times_B
        exact = np.array(int(each_B[~self.is_wrong(target_B, values)].sum()))
        if values.shape[1] == self._num_answered:
            return Measures({"exact": exact})
        log_likelihood_B, hits_B, tokens_B = values[:, self._num_answered :].astype(np.float64).T
        hits, tokens = (np.array(int((each_B * of_B.astype(np.int64)).sum())) for of_B in (hits_B, tokens_B))
        counts = {"exact": exact, "hits": hits, "tokens": tokens}
        return Measures(counts, {"log_likelihood": sums(log_likelihood_B, times_B)})

    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        """`exact_match` alone of answers whose truth the model was not asked about."""
        del quantile
        counts = measures.counts
        found = {"exact_match": float(counts["exact"] / counts["weight"])}
        if "tokens" in counts:
            found["token_accuracy"] = float(counts["hits"] / max(1, counts["tokens"]))
            found["perplexity"] = perplexity(measures.sums["log_likelihood"], int(counts["tokens"]))
        return found
