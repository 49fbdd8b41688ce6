"""Which token comes next, after each of a text.  Shape letters: B rows, T tokens of the context, V ids."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data import spelling
from raypipe.data.next_tokens import read_and_asked
from raypipe.data.table.sums import sums
from raypipe.model.measures import Measures
from raypipe.model.metrics import language_metrics
from raypipe.model.tasks.base import Features, OutputColumn, Values
from raypipe.model.tasks.tokens import NextToken, language_problem
from raypipe.records import Language, Signature, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raypipe.model.text_writer import TextWriter


class LanguageModel(NextToken):
    """A network gives a logit an id, after each token; the model tells how likely the text was, [B, 2]: the natural
    logarithm of its probability given its first token, and the number of tokens that were asked for. What metrics need
    has a third number of tokens that are several bytes: how many bytes they are."""

    name = "language_model"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.columns = (
            OutputColumn("perplexity", "answer", "float32"),
            OutputColumn("log_likelihood", "detail", "float32"),
            OutputColumn("num_tokens", "detail", "float32"),
        )

    @staticmethod
    def num_ids(language: Language) -> int:
        return spelling.num_ids(language)

    @staticmethod
    def problem(signature: Signature) -> str:
        return language_problem(signature)

    def read_and_compared(
        self, features: NDArray[np.float32], target: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        del target  # it is the text itself
        return read_and_asked(features)

    def writer(self, network: nn.Module, features: Features, device: str) -> TextWriter:
        from raypipe.model.text_writer import Continuing

        del features  # of a text that is longer than the context they are its start
        return Continuing(network, self._language, device)

    def asked(self, network: nn.Module) -> nn.Module:
        from raypipe.model.likelihood import Likelihood

        return Likelihood(network)

    def learned(self, output: Tensor, target: Tensor) -> Tensor:
        from raypipe.model.likelihood import likelihood

        return self._with_bytes(likelihood(output, target), target)

    def judged(self, network: nn.Module, features: Tensor, target: NDArray[Any], values: Values) -> Values:
        import torch

        del network, target
        _, asked_BT = read_and_asked(features)
        return self._with_bytes(torch.from_numpy(values), asked_BT.cpu().long()).numpy()

    def _with_bytes(self, told_B2: Tensor, asked_BT: Tensor) -> Tensor:
        """[B, 3] where tokens are merged byte pairs; else as it is."""
        import torch

        if self._language.tokenizer != "bpe":
            return told_B2
        bytes_BT = torch.from_numpy(self._spelling.num_bytes).to(asked_BT.device)[asked_BT]
        return torch.cat([told_B2, bytes_BT.sum(dim=1, keepdim=True).to(told_B2.dtype)], dim=1)

    @cached_property
    def _spelling(self) -> spelling.Spelling:
        return spelling.Spelling(self._language)

    def answer(self, column: OutputColumn, values: Values) -> Values:
        if column.name == "perplexity":
            return self.encoded(values)
        return values[:, 0] if column.name == "log_likelihood" else values[:, 1]

    def json_rows(self, values: Values) -> list[dict[str, Any]]:
        told = {column.name: self.answer(column, values) for column in self.columns}
        return [
            {"perplexity": told["perplexity"][row], "log_likelihood": values[row, 0], "num_tokens": int(values[row, 1])}
            for row in range(len(values))
        ]

    def row_losses(self, target_B: NDArray[Any], values: Values) -> NDArray[np.float64]:
        """Nats a token."""
        del target_B
        return -values[:, 0].astype(np.float64) / np.maximum(values[:, 1], 1)

    def encoded(self, values: Values) -> NDArray[np.float32]:
        """Perplexity of each text; 1 where nothing was asked for."""
        largest = np.log(np.finfo(np.float32).max)
        return np.exp(np.minimum(-values[:, 0] / np.maximum(values[:, 1], 1), largest)).astype(np.float32)

    def is_wrong(self, target_B: NDArray[Any], values: Values) -> NDArray[np.bool_]:
        return np.ones(len(target_B), np.bool_)

    def known_as(self, encoded_B: NDArray[Any]) -> list[Value]:
        return [float(value) for value in encoded_B]

    def _measure(self, target_B: NDArray[Any], values: Values, times_B: NDArray[np.int64] | None) -> Measures:
        del times_B  # windows of a text count alike
        numbers = values[:, 1:].astype(np.float64).sum(axis=0)
        counts = {name: np.array(int(number)) for name, number in zip(("tokens", "bytes"), numbers, strict=False)}
        return Measures(counts, {"log_likelihood": sums(values[:, 0].astype(np.float64))})

    def _metrics(self, measures: Measures, quantile: float | None) -> dict[str, float]:
        del quantile
        tokens, tokenizer = int(measures.counts["tokens"]), self._language.tokenizer
        num_bytes = measures.counts.get("bytes")
        units = tokens if tokenizer != "bpe" else None if num_bytes is None else int(num_bytes)
        return language_metrics(measures.sums["log_likelihood"], tokens, units, tokenizer)
