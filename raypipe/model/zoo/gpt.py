"""A decoder of text: what may come next, after each token of a text; and text that it writes itself.

Shape letters: B rows, T tokens, V tokens of the vocabulary, D numbers a token inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raypipe.errors import ModelError
from raypipe.model.features import Features
from raypipe.model.zoo.attention import Block, Past, Positions, draw_small
from raypipe.model.zoo.sampling import Sampler
from raypipe.spec.model import GptModel


def build(spec: GptModel, features: Features, num_outputs: int) -> nn.Module:
    """
    Raises:
        ModelError: a row is not the ids of one text.
    """
    if features.vocabulary() is None:
        raise ModelError(
            f"model.kind: gpt reads the ids of one text, found rows of shape {list(features.shape)}",
            "set data.task: language_model",
        )
    return Gpt(spec, num_outputs, features.shape[0])


class Gpt(nn.Module):
    """Reads ids [B, T], gives logits [B, T, V] of the token that follows each.

    Args:
        vocabulary: V; ids are below this.
        window: the most tokens it reads at a time.
    """

    def __init__(self, spec: GptModel, vocabulary: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.tokens = nn.Embedding(vocabulary, spec.dim)
        self.positions = Positions("learned", window, spec.dim)
        self.dropout = nn.Dropout(spec.dropout_frac)
        self.blocks = nn.ModuleList(Block(spec, is_causal=True) for _ in range(spec.num_layers))
        self.norm = nn.LayerNorm(spec.dim)
        draw_small(self, spec.num_layers)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V].

        Args:
            ids_BT: whole numbers, of whatever type.
        Raises:
            ModelError: there are more tokens than the window holds.
        """
        return self._logits(self._read(ids_BT))

    @torch.inference_mode()
    def generate(self, prompt_BT: Tensor, num_tokens: int, sampler: Sampler) -> Iterator[Tensor]:
        """Go on with a text, one token after another, int64 [B] each; each costs one token's computation.

        Where the window is full, its newer half is read again and the rest forgotten. Call it in eval mode.

        Args:
            prompt_BT: ids, 1 or more a row; of a longer text than the window the end is read.
            sampler: of as many rows; the same seed writes the same text.
        """
        text_BT = prompt_BT.long()[:, -self.window :]
        unread_BT, pasts = text_BT, self._no_past()
        for _ in range(num_tokens):
            logits_BV = self._logits(self._read(unread_BT, pasts, text_BT.shape[1] - unread_BT.shape[1])[:, -1])
            drawn_B = sampler.draw(logits_BV)
            yield drawn_B
            text_BT = torch.cat([text_BT, drawn_B[:, None]], dim=1)
            unread_BT = drawn_B[:, None]
            if text_BT.shape[1] > self.window:
                text_BT = text_BT[:, -max(1, self.window // 2) :]
                unread_BT, pasts = text_BT, self._no_past()

    def _no_past(self) -> list[Past]:
        return [Past() for _ in self.blocks]

    def _read(self, ids_BT: Tensor, pasts: Sequence[Past] | None = None, start: int = 0) -> Tensor:
        """[B, T, D]."""
        # A tracer has no numbers here, and is given rows as long as those that will come.
        is_traced = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]  (torch's documentation has it)
        if not is_traced and start + ids_BT.shape[1] > self.window:
            raise ModelError(
                f"model.kind: gpt reads up to {self.window} tokens at a time; found {start + ids_BT.shape[1]}",
                "cut the text, or train with longer rows",
            )
        x_BTD = self.dropout(self.positions(self.tokens(ids_BT.long()), start))
        for number, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, past=None if pasts is None else pasts[number])
        return self.norm(x_BTD)

    def _logits(self, x: Tensor) -> Tensor:
        # One tensor under one name, not two names of one: that is what safetensors and sharding take.
        return functional.linear(x, self.tokens.weight)
