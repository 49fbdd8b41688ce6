"""One sequence of tokens in, another one out.

Shape letters: B rows, S tokens of the source, T tokens of the target, V tokens of the target's vocabulary, D numbers a
token inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raypipe.errors import ModelError
from raypipe.model.features import Features
from raypipe.model.zoo.attention import Block, Past, Positions, draw_small, kept
from raypipe.model.zoo.sampling import Sampler
from raypipe.spec.model import EncoderDecoderModel

PADDING = 0
"""Id of what stands behind a sequence, as the `tokens` transform has it."""


def build(spec: EncoderDecoderModel, features: Features, num_outputs: int) -> nn.Module:
    """
    Raises:
        ModelError: a row is not the ids of one text, and behind them those of a target.
    """
    source_vocabulary = features.vocabulary()
    source_length = 0 if source_vocabulary is None else features.parts()[0].width
    if source_vocabulary is None or source_length >= features.shape[0]:
        raise ModelError(
            f"model.kind: encoder_decoder reads the ids of one text and those of another, found rows of shape "
            f"{list(features.shape)}",
            "set data.task: sequence_to_sequence",
        )
    return EncoderDecoder(
        spec,
        source_vocabulary=source_vocabulary,
        source_length=source_length,
        target_vocabulary=num_outputs,
        target_length=features.shape[0] - source_length,
    )


class EncoderDecoder(nn.Module):
    """Reads a source's ids and behind them a target's so far [B, S + T], gives logits [B, T, V] of the token after each
    of the target's.

    Args:
        source_vocabulary, target_vocabulary: ids are below these; 0 is padding.
        source_length: S, of every row, padding included.
        target_length: the most tokens of a target.
    """

    def __init__(
        self,
        spec: EncoderDecoderModel,
        *,
        source_vocabulary: int,
        source_length: int,
        target_vocabulary: int,
        target_length: int,
    ) -> None:
        super().__init__()
        self.source_length, self.target_length = source_length, target_length
        self.source_tokens = nn.Embedding(source_vocabulary, spec.dim)
        self.source_positions = Positions("learned", source_length, spec.dim)
        self.encoder_blocks = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.encoder_norm = nn.LayerNorm(spec.dim)
        self.target_tokens = nn.Embedding(target_vocabulary, spec.dim)
        self.target_positions = Positions("learned", target_length, spec.dim)
        self.decoder_blocks = nn.ModuleList(
            Block(spec, is_causal=True, attends_to_other=True) for _ in range(spec.num_layers)
        )
        self.decoder_norm = nn.LayerNorm(spec.dim)
        self.dropout = nn.Dropout(spec.dropout_frac)
        draw_small(self, spec.num_layers)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, T, V].

        Args:
            ids: [B, S + T], whole numbers of whatever type. The target begins with what says that it begins. Padding
                behind the source is seen by nobody, and that behind the target by no token before it.
        Raises:
            ModelError: there are more tokens than was said.
        """
        source_BS, target_BT = ids[:, : self.source_length], ids[:, self.source_length :]
        return self._decoded(target_BT, *self._encoded(source_BS))

    @torch.inference_mode()
    def generate(self, source_BS: Tensor, num_tokens: int, sampler: Sampler, *, begin: int) -> Iterator[Tensor]:
        """Write the target of each source, one token after another, int64 [B] each; each costs one token's computation.
        Call it in eval mode.

        Args:
            num_tokens: at most as many as a target has.
            sampler: of as many rows.
            begin: the id that stands before a target's first token.
        """
        source_BSD, keep_BS = self._encoded(source_BS)
        pasts = [(Past(), Past()) for _ in self.decoder_blocks]
        last_B = torch.full((len(source_BS),), begin, dtype=torch.int64, device=source_BS.device)
        for start in range(num_tokens):
            last_B = sampler.draw(self._decoded(last_B[:, None], source_BSD, keep_BS, pasts, start)[:, -1])
            yield last_B

    def _encoded(self, source_BS: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder read [B, S, D], and where it is no padding [B, S]."""
        _check_length("source", source_BS.shape[1], self.source_length)
        keep_BS = kept(source_BS == PADDING)
        x_BSD = self.dropout(self.source_positions(self.source_tokens(source_BS.long())))
        for block in self.encoder_blocks:
            x_BSD = block(x_BSD, keep_BT=keep_BS)
        return self.encoder_norm(x_BSD), keep_BS

    def _decoded(
        self,
        target_BT: Tensor,
        source_BSD: Tensor,
        keep_BS: Tensor,
        pasts: Sequence[tuple[Past, Past]] | None = None,
        start: int = 0,
    ) -> Tensor:
        """Logits [B, T, V].

        Args:
            pasts: of each block, for what it has read of the target and for what it makes of the source.
        """
        _check_length("target", start + target_BT.shape[1], self.target_length)
        x_BTD = self.dropout(self.target_positions(self.target_tokens(target_BT.long()), start))
        for number, block in enumerate(self.decoder_blocks):
            own, other = (None, None) if pasts is None else pasts[number]
            x_BTD = block(x_BTD, other_BSD=source_BSD, keep_BS=keep_BS, past=own, other_past=other)
        return functional.linear(self.decoder_norm(x_BTD), self.target_tokens.weight)


def _check_length(what: str, found: int, most: int) -> None:
    if found > most:
        raise ModelError(
            f"model.kind: encoder_decoder reads a {what} of up to {most} tokens; found {found}",
            "cut it, or train with longer rows",
        )
