"""What networks of attention are made of: the block, and how places in a sequence are told apart.

Shape letters: B rows, T places of a sequence, S places of what it attends to, D numbers a place, H heads.
Source: Vaswani et al. 2017, "Attention Is All You Need"; normalized before each part, as in Radford et al. 2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raypipe.model.zoo.layers import ACTIVATIONS
from raypipe.spec.model import Activation, AttentionSpec

SMALL_STD = 0.02
"""Of a GPT's first weights (Radford et al. 2019)."""

PLACE_STD = 0.2
"""Of an encoder's first positions and tokens: small beside them, positions are not seen for epochs."""

LONGEST_WAVE = 10_000.0
"""Places in the longest period of sinusoidal positions, over 2 pi."""


class Past:
    """Keys and values [B, H, T, D / H] of the places that one attention has read, so that they are computed once."""

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All there are, with those of new places."""
        if self._keys is not None and self._values is not None:
            keys, values = torch.cat([self._keys, keys], dim=2), torch.cat([self._values, values], dim=2)
        self._keys, self._values = keys, values
        return keys, values

    def kept(self) -> tuple[Tensor, Tensor] | None:
        """Those of a sequence that does not grow, where they are there already."""
        return None if self._keys is None or self._values is None else (self._keys, self._values)


class Attention(nn.Module):
    """Places of x ask places of x itself, or of another sequence.

    Args:
        is_causal: a place asks itself and those before it alone.
    """

    def __init__(self, spec: AttentionSpec, *, is_causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.dropout_frac, self.is_causal = spec.num_heads, spec.dropout_frac, is_causal
        self.query = nn.Linear(spec.dim, spec.dim)
        self.key_value = nn.Linear(spec.dim, 2 * spec.dim)
        self.out = nn.Linear(spec.dim, spec.dim)

    def forward(
        self, x_BTD: Tensor, other_BSD: Tensor | None = None, keep_BS: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """[B, T, D].

        Args:
            keep_BS: False where a place is padding, which nobody asks; None: there is none.
            past: what was read before x; more than one place at a time only where nothing was. Of another sequence:
                what was made of it, as it stays the same.
        """
        queries = self._heads(self.query(x_BTD))
        is_first = past is None or past.kept() is None
        before = past.kept() if past is not None and other_BSD is not None else None
        keys, values = before or self._keys_values(x_BTD if other_BSD is None else other_BSD)
        if past is not None and before is None:
            keys, values = past.extended(keys, values)
        answers = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=None if keep_BS is None else keep_BS[:, None, None, :],
            dropout_p=self.dropout_frac if self.training else 0.0,
            is_causal=self.is_causal and is_first,  # one place behind others asks them all
        )
        return self.out(answers.transpose(1, 2).flatten(2))

    def _keys_values(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(x_BTD).chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention to itself, to another sequence if there is one, and two fully connected layers; each is added to what
    came in.

    Args:
        attends_to_other: it is given another sequence.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        *,
        activation: Activation = "gelu",
        is_causal: bool = False,
        attends_to_other: bool = False,
    ) -> None:
        super().__init__()
        self.own_norm, self.own = nn.LayerNorm(spec.dim), Attention(spec, is_causal=is_causal)
        if attends_to_other:
            self.other_norm, self.other = nn.LayerNorm(spec.dim), Attention(spec)
        hidden = spec.hidden or 4 * spec.dim
        self.norm = nn.LayerNorm(spec.dim)
        self.layers = nn.Sequential(nn.Linear(spec.dim, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, spec.dim))
        self.dropout = nn.Dropout(spec.dropout_frac)

    def forward(
        self,
        x_BTD: Tensor,
        *,
        keep_BT: Tensor | None = None,
        other_BSD: Tensor | None = None,
        keep_BS: Tensor | None = None,
        past: Past | None = None,
        other_past: Past | None = None,
    ) -> Tensor:
        """[B, T, D]; see Attention."""
        x_BTD = x_BTD + self.dropout(self.own(self.own_norm(x_BTD), keep_BS=keep_BT, past=past))
        if other_BSD is not None:
            x_BTD = x_BTD + self.dropout(self.other(self.other_norm(x_BTD), other_BSD, keep_BS, other_past))
        return x_BTD + self.dropout(self.layers(self.norm(x_BTD)))


class Positions(nn.Module):
    """Adds what tells a place from another: learned numbers, or waves of many lengths.

    Args:
        length: places of the longest sequence.
    """

    waves_TD: Tensor

    def __init__(self, kind: str, length: int, dim: int) -> None:
        super().__init__()
        if kind == "learned":
            self.learned_TD = nn.Parameter(torch.empty(length, dim).normal_(std=PLACE_STD))
        elif kind == "sinusoidal":
            self.register_buffer("waves_TD", _waves(length, dim), persistent=False)
        self.kind = kind

    def forward(self, x_BTD: Tensor, start: int = 0) -> Tensor:
        """[B, T, D], whose first place is the sequence's place `start`."""
        if self.kind == "none":
            return x_BTD
        added_TD = self.learned_TD if self.kind == "learned" else self.waves_TD
        return x_BTD + added_TD[start : start + x_BTD.shape[1]]


def kept(is_padding_BT: Tensor) -> Tensor:
    """False where a place is padding. A row of nothing else keeps all: its attention would have no weights."""
    return ~is_padding_BT | is_padding_BT.all(dim=1, keepdim=True)


def draw_small(network: nn.Module, num_layers: int) -> None:
    """First weights as those of GPT-2: small, and smaller where blocks add to what came in, so that depth adds up to
    the same."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            adds = name.endswith(("out.weight", "layers.2.weight"))
            nn.init.normal_(parameter, std=SMALL_STD / math.sqrt(2 * num_layers) if adds else SMALL_STD)


def _waves(length: int, dim: int) -> Tensor:
    """Sines, then cosines [T, D]; the lengths of waves are a geometric series."""
    rate_D = torch.exp(torch.arange(dim // 2) * (-math.log(LONGEST_WAVE) / (dim // 2)))
    angle_TD = torch.arange(length)[:, None] * rate_D
    return torch.cat([angle_TD.sin(), angle_TD.cos()], dim=1)
