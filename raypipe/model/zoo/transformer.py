"""A transformer encoder: each place of a sequence attends to all others, then the mean over places is classified.

Shape letters: B rows, T places, F numbers a place, D numbers a place inside.
"""

from __future__ import annotations

from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.features import Features
from raypipe.model.zoo.attention import PLACE_STD, Block, Positions, kept
from raypipe.spec.model import TransformerModel


class Transformer(nn.Module):
    """Reads numbers [B, T, F], or token ids [B, T] as whole numbers in float32; gives [B, num_outputs].

    Args:
        width: F; None: rows are ids.
        vocabulary: ids are below this.
    """

    def __init__(
        self, spec: TransformerModel, length: int, width: int | None, vocabulary: int | None, num_outputs: int
    ) -> None:
        super().__init__()
        self.pads_zeros = spec.padding == "zeros"
        if width is None:
            assert vocabulary is not None
            self.tokens = nn.Embedding(vocabulary, spec.dim)
            nn.init.normal_(self.tokens.weight, std=PLACE_STD)
        else:
            self.embed = nn.Linear(width, spec.dim)
        self.positions = Positions(spec.positions, length, spec.dim)
        self.dropout = nn.Dropout(spec.dropout_frac)
        self.blocks = nn.ModuleList(Block(spec, activation=spec.activation) for _ in range(spec.num_layers))
        self.norm = nn.LayerNorm(spec.dim)
        self.head = nn.Linear(spec.dim, num_outputs)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.dim() == 2:
            x_BTD, keep_BT = self.tokens(rows.long()), kept(rows == 0)
        else:
            x_BTD, keep_BT = self.embed(rows), kept((rows == 0).all(dim=2)) if self.pads_zeros else None
        x_BTD = self.dropout(self.positions(x_BTD))
        for block in self.blocks:
            x_BTD = block(x_BTD, keep_BT=keep_BT)
        x_BTD = self.norm(x_BTD)
        if keep_BT is None:
            return self.head(x_BTD.mean(dim=1))
        weight_BT1 = keep_BT.unsqueeze(2).to(x_BTD.dtype)
        return self.head((x_BTD * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1))


def build(spec: TransformerModel, features: Features, num_outputs: int) -> nn.Module:
    shape = features.shape
    if len(shape) == 2:
        return Transformer(spec, shape[0], shape[1], None, num_outputs)
    vocabulary = features.vocabulary()
    if vocabulary is None:
        raise ModelError(
            f"model.kind: transformer reads one sequence of numbers [T, F] or of token ids [T], but a row here has "
            f"{list(shape)}, and is not what a `tokens` transform gives",
            "name one column alone in data.features: an array [T, F], or text with a tokens transform as its last",
        )
    return Transformer(spec, shape[0], None, vocabulary, num_outputs)
