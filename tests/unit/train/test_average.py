from __future__ import annotations

import torch
from torch import nn

from raypipe.train.average import Ema


def test_ema_is_the_mean_that_its_formula_gives_and_is_swapped_in_for_a_while() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = Ema(module, 0.5)
    expected = first = module.weight.item()
    for step in range(4):
        with torch.no_grad():
            module.weight.fill_(step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step

    with average.in_use():
        assert abs(module.weight.item() - expected) < 1e-6 and expected != first
    assert module.weight.item() == 3.0
    torch.testing.assert_close(average.tensors()["weight"], torch.tensor([[expected]]))


def test_ema_without_a_decay_keeps_nothing() -> None:
    module = nn.Linear(1, 1)
    average = Ema(module, None)
    average.update(0)
    before = module.weight.detach().clone()
    with average.in_use():
        assert torch.equal(module.weight, before)
    assert average.tensors() == {}
