"""Texts that a network writes, token by token: what follows a text, or what belongs to it.

Shape letters: B rows, S tokens of a source, T tokens, V ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from raypipe.data.spelling import NO_TEXT, PADDING, Spelling
from raypipe.data.target_text import TargetText, end_of
from raypipe.errors import DataError
from raypipe.model.likelihood import behind, likelihood
from raypipe.model.tasks.base import Features
from raypipe.model.zoo.encoder_decoder import EncoderDecoder
from raypipe.model.zoo.gpt import Gpt
from raypipe.model.zoo.sampling import CheckedSampler, Sampler
from raypipe.records import Language

MAX_TOLD = 5
"""Unknown characters named in a message."""

AT_ONCE = 2**16
"""Characters looked at before other threads may run: Python's lock is held meanwhile."""


class TextWriter(ABC):
    """Reads a prompt once, then writes.

    Attributes:
        usual_tokens: what is written where nobody says how much.
        most_tokens: what can be written; None: there is no end.
        usual_temperature: see Sampler.
        example: a prompt.
    """

    usual_tokens: int
    most_tokens: int | None = None
    usual_temperature: float
    example: str

    @abstractmethod
    def read(self, prompt: str) -> Tensor:
        """What the network reads of a text, one row.

        Raises:
            DataError: it is none that the model can read.
        """

    @abstractmethod
    def write(
        self, prompt: Tensor, num_tokens: int, *, seed: int, temperature: float, top_k: int | None = None
    ) -> Iterator[str]:
        """What is written, piece by piece; the same seed gives the same text.

        Args:
            prompt: of `read`.
            temperature, top_k: see Sampler.
        Raises:
            NotFiniteError: while it is read; the network answers NaN.
        """


class Continuing(TextWriter):
    """A language model goes on with a text.

    Args:
        network: reads ids [B, T], gives logits [B, T, V] of those that follow; in eval mode.
    """

    usual_tokens, usual_temperature = 100, 1.0

    def __init__(self, network: nn.Module, language: Language, device: str = "cpu") -> None:
        self._network, self._language, self._device = network, language, device
        self._spelling = Spelling(language)
        self._most_read = network.window if isinstance(network, Gpt) else language.context_length
        self.example = next(filter(str.isalpha, language.tokens), (*language.tokens, "a")[0])

    def read(self, prompt: str) -> Tensor:
        """Ids of the end of a text, int64 [1, T], as much as the network reads.

        Raises:
            DataError: it is empty, or holds a character that train has not.
        """
        if not prompt:
            raise DataError("prompt is empty; it must hold one character or more", 'begin with a line break: "\\n"')
        refuse_unknown(prompt, self._spelling.known)
        return torch.tensor([self._spelling.last_ids(prompt, self._most_read)], device=self._device)

    def write(
        self, prompt: Tensor, num_tokens: int, *, seed: int, temperature: float = 1.0, top_k: int | None = None
    ) -> Iterator[str]:
        """What follows, token after token; of a prompt longer than the context its end counts."""
        sampler = CheckedSampler([seed], temperature, top_k, never=NO_TEXT)
        if isinstance(self._network, Gpt):
            drawn = self._network.generate(prompt, num_tokens, sampler)
        else:
            drawn = self._reading_all_again(prompt, num_tokens, sampler)
        yield from self._spelling.pieces(int(id_B) for id_B in drawn)

    @torch.inference_mode()
    def _reading_all_again(self, text_BT: Tensor, num_tokens: int, sampler: Sampler) -> Iterator[Tensor]:
        """With a network of which nothing is known: it reads whole contexts, as it did in training."""
        length = self._language.context_length
        for _ in range(num_tokens):
            text_BT = text_BT[:, -length:]
            padded_BT = nn.functional.pad(text_BT, (0, length - text_BT.shape[1])).float()
            drawn_B = sampler.draw(self._network(padded_BT)[:, text_BT.shape[1] - 1])
            yield drawn_B
            text_BT = torch.cat([text_BT, drawn_B[:, None]], dim=1)


def refuse_unknown(prompt: str, known: Sequence[str]) -> None:
    """Refuse a prompt with characters that are not among those that train holds.

    Args:
        known: empty: the model knows all.
    Raises:
        DataError: names some of them.
    """
    there, unknown = frozenset(known), dict[str, None]()
    for start in range(0, len(prompt) if there else 0, AT_ONCE):
        part = prompt[start : start + AT_ONCE]
        if not there.issuperset(part):
            unknown |= dict.fromkeys(character for character in part if character not in there)
    if unknown:
        told = ", ".join(repr(character) for character in list(unknown)[:MAX_TOLD])
        more = f" and {len(unknown) - MAX_TOLD} more" if len(unknown) > MAX_TOLD else ""
        raise DataError(
            f"prompt holds {told}{more}, which the model has never read",
            f"it knows {len(there)} characters: {''.join(sorted(there))[:200]!r}",
        )


class Answering(TextWriter):
    """A model from sequence to sequence writes what belongs to a source.

    Args:
        network: see `tokens_behind`.
        column: the source's.
        features: raw columns -> what the transforms give.
    """

    usual_temperature = 0.0

    def __init__(
        self,
        network: nn.Module,
        written: TargetText,
        language: Language,
        column: str,
        features: Features,
        device: str = "cpu",
    ) -> None:
        self._network, self._written, self._language, self._device = network, written, language, device
        self._column, self._features = column, features
        self.usual_tokens = self.most_tokens = language.context_length
        self.example = "text"

    def read(self, prompt: str) -> Tensor:
        """A source's ids, float32 [1, S]. Raises DataError for what the transforms refuse."""
        text = np.empty(1, object)
        text[0] = prompt
        return torch.from_numpy(self._features({self._column: text})).to(self._device)

    def write(
        self, prompt: Tensor, num_tokens: int, *, seed: int, temperature: float = 0.0, top_k: int | None = None
    ) -> Iterator[str]:
        """Up to the end of the target; by temperature 0 what a row is answered with."""
        sampler = CheckedSampler([seed], temperature, top_k, never=NO_TEXT)
        drawn = tokens_behind(self._network, prompt, min(num_tokens, self.usual_tokens), sampler, self._language)
        yield from self._written.pieces(int(id_B) for id_B in drawn)


class Greedy(nn.Module):
    """Reads sources [B, S] and gives their targets, each token the likeliest behind those before it, [B, T + 1]: ids, 0
    behind the end, and the natural logarithm of the whole one's probability.

    Args:
        network: see `tokens_behind`.
    """

    def __init__(self, network: nn.Module, language: Language) -> None:
        super().__init__()
        self.network, self._language, self._end = network, language, end_of(language)

    def forward(self, source_BS: Tensor) -> Tensor:
        length = self._language.context_length
        written_BT = torch.zeros(len(source_BS), length, dtype=torch.int64, device=source_BS.device)
        is_done_B = torch.zeros(len(source_BS), dtype=torch.bool, device=source_BS.device)
        sampler = Sampler([0] * len(source_BS), temperature=0.0, never=NO_TEXT)
        for place, drawn_B in enumerate(tokens_behind(self.network, source_BS, length, sampler, self._language)):
            written_BT[:, place] = drawn_B.masked_fill(is_done_B, PADDING)
            is_done_B |= drawn_B == self._end
            if bool(is_done_B.all()):
                break
        told_B2 = likelihood(self.network(behind(source_BS, written_BT, self._end)).float(), written_BT)
        return torch.cat([written_BT.float(), told_B2[:, :1]], dim=1)


def tokens_behind(
    network: nn.Module, source_BS: Tensor, num_tokens: int, sampler: Sampler, language: Language
) -> Iterator[Tensor]:
    """The tokens of each source's target, one after another, int64 [B].

    Args:
        network: reads what `behind` makes of sources and targets, gives logits [B, T, V]; in eval mode.
        num_tokens: at most `context_length`.
    """
    if isinstance(network, EncoderDecoder):
        return network.generate(source_BS, num_tokens, sampler, begin=end_of(language))
    return _reading_both_again(network, source_BS, num_tokens, sampler, language)


@torch.inference_mode()
def _reading_both_again(
    network: nn.Module, source_BS: Tensor, num_tokens: int, sampler: Sampler, language: Language
) -> Iterator[Tensor]:
    """With a network of which nothing is known."""
    written_BT = torch.zeros(len(source_BS), language.context_length, dtype=torch.int64, device=source_BS.device)
    for place in range(num_tokens):
        drawn_B = sampler.draw(network(behind(source_BS, written_BT, end_of(language))).float()[:, place])
        yield drawn_B
        written_BT[:, place] = drawn_B
