"""How likely a network finds a text.

Shape letters: B rows, S tokens of a source, T tokens of the context or of a target, V ids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypipe.data.next_tokens import read_and_asked
from raypipe.data.spelling import NO_TEXT


class Likelihood(nn.Module):
    """Reads ids [B, T + 1], 0 behind the end of a shorter text, and gives what `likelihood` does.

    Args:
        network: reads ids [B, T], gives logits [B, T, V] of those that follow.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        read_BT, asked_BT = read_and_asked(ids)
        return likelihood(self.network(read_BT).float(), asked_BT.long())


def likelihood(logits_BTV: Tensor, asked_BT: Tensor) -> Tensor:
    """[B, 2]: the natural logarithm of the probability that the texts were given, and their tokens.

    Args:
        asked_BT: ids that follow; 0: none does.
    """
    there_BT = asked_BT != 0
    given_BT = logits_BTV.log_softmax(dim=2).gather(2, asked_BT[:, :, None])[:, :, 0]
    given_BT = torch.where(there_BT, given_BT, 0.0)
    return torch.stack([given_BT.sum(dim=1), there_BT.sum(dim=1).to(given_BT.dtype)], dim=1)


def likeliest(logits_BTV: Tensor) -> Tensor:
    """Id of the likeliest token at each place [B, T], of those that stand for a text or its end."""
    logits_BTV = logits_BTV.clone()
    logits_BTV[:, :, list(NO_TEXT)] = -torch.inf
    return logits_BTV.argmax(dim=2)


def known_target(logits_BTV: Tensor, target_BT: Tensor) -> Tensor:
    """[B, 3]: of the true targets the natural logarithm of their probability, how many of their tokens were the
    likeliest at their place, and their tokens."""
    told_B2 = likelihood(logits_BTV, target_BT)
    right_BT = (likeliest(logits_BTV) == target_BT) & (target_BT != 0)
    return torch.stack([told_B2[:, 0], right_BT.sum(dim=1).to(told_B2.dtype), told_B2[:, 1]], dim=1)


def behind(source_BS: Tensor, target_BT: Tensor, begin: int) -> Tensor:
    """What a network reads to tell the tokens of a target, [B, S + T]; see next_tokens.with_target."""
    first_B1 = torch.full((len(target_BT), 1), float(begin), device=source_BS.device)
    return torch.cat([source_BS, first_B1, target_BT[:, :-1].float()], dim=1)
