"""The decoder and the encoder-decoder: who sees whom, what is shared, and what is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from raypipe.errors import ModelError
from raypipe.model.zoo.encoder_decoder import EncoderDecoder
from raypipe.model.zoo.gpt import Gpt
from raypipe.model.zoo.sampling import Sampler
from raypipe.spec.model import EncoderDecoderModel, GptModel

VOCABULARY, WINDOW = 11, 8
BEGIN, END = 1, 2


def a_gpt(**fields: int | float) -> Gpt:
    torch.manual_seed(0)
    spec = GptModel.model_validate({"kind": "gpt", "dim": 16, "num_layers": 2, "num_heads": 2, **fields})
    return Gpt(spec, VOCABULARY, WINDOW).eval()


def an_encoder_decoder() -> EncoderDecoder:
    torch.manual_seed(0)
    spec = EncoderDecoderModel(kind="encoder_decoder", dim=32, num_layers=1, num_heads=2)
    return EncoderDecoder(
        spec, source_vocabulary=VOCABULARY, source_length=6, target_vocabulary=VOCABULARY, target_length=6
    ).eval()


def written(gpt: Gpt, prompt: Tensor, num: int, **how: object) -> Tensor:
    how.setdefault("seeds", range(len(prompt)))
    return torch.stack(list(gpt.generate(prompt, num, Sampler(**how))), dim=1)  # pyright: ignore[reportArgumentType]


def trained(network: nn.Module, loss: Callable[[], Tensor], steps: int) -> float:
    """The last loss, after Adam's steps on one batch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    value = torch.tensor(0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    return float(value.detach())


def test_gpt_no_token_sees_what_follows_it() -> None:
    gpt, ids = a_gpt(), torch.randint(0, VOCABULARY, (3, WINDOW))
    other = ids.clone()
    other[:, 5] = (ids[:, 5] + 1) % VOCABULARY

    before, after = gpt(ids), gpt(other)

    assert before.shape == (3, WINDOW, VOCABULARY)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_gpt_tells_tokens_by_the_vectors_it_reads_them_with() -> None:
    gpt = a_gpt()
    names = [name for name, value in gpt.named_parameters() if VOCABULARY in value.shape]
    assert names == ["tokens.weight"]
    assert len(gpt.state_dict()) == len({value.data_ptr() for value in gpt.state_dict().values()})


def test_gpt_first_loss_is_that_of_guessing() -> None:
    ids = torch.randint(0, VOCABULARY, (512, WINDOW + 1))
    loss = functional.cross_entropy(a_gpt()(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(VOCABULARY), abs=0.02)


def test_gpt_same_seed_gives_the_same_first_weights() -> None:
    first, again = a_gpt().state_dict(), a_gpt().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


@pytest.mark.parametrize("num_prompt", [1, 3, WINDOW, WINDOW + 5])
def test_gpt_generated_tokens_are_those_of_reading_the_whole_text_each_time(num_prompt: int) -> None:
    gpt = a_gpt()
    nn.init.normal_(gpt.tokens.weight)  # far from guessing, so that a wrong place would change the choice
    prompt = torch.randint(0, VOCABULARY, (2, num_prompt))
    text = prompt[:, -WINDOW:]
    expected: list[Tensor] = []
    for _ in range(2 * WINDOW):
        expected.append(gpt(text)[:, -1].argmax(dim=1))
        text = torch.cat([text, expected[-1][:, None]], dim=1)
        text = text[:, -WINDOW // 2 :] if text.shape[1] > WINDOW else text

    assert torch.equal(written(gpt, prompt, 2 * WINDOW, temperature=0), torch.stack(expected, dim=1))


def test_gpt_a_seed_writes_one_text_whoever_shares_the_call() -> None:
    gpt, prompt = a_gpt(), torch.ones(1, 2, dtype=torch.int64)
    alone = written(gpt, prompt, 20, seeds=[7])

    assert torch.equal(written(gpt, prompt.expand(3, 2), 20, seeds=[5, 7, 5])[1], alone[0])
    assert not torch.equal(written(gpt, prompt, 20, seeds=[8]), alone)


def test_gpt_learns_a_text_and_goes_on_with_it() -> None:
    gpt = a_gpt().train()
    text = torch.arange(WINDOW + 1) % 5 + 2
    loss = trained(gpt, lambda: functional.cross_entropy(gpt(text[None, :-1])[0], text[1:]), 60)

    assert loss < 0.1
    assert written(gpt.eval(), text[None, :3], 5, temperature=0).tolist() == [[5, 6, 2, 3, 4]]


def test_gpt_more_tokens_than_the_window_are_refused() -> None:
    with pytest.raises(ModelError, match="reads up to 8 tokens at a time; found 9"):
        a_gpt()(torch.zeros(1, 9))


def test_sampler_temperature_and_top_k_narrow_the_draw() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(400, 4)

    def drawn(**how: float) -> list[int]:
        return sorted(set(Sampler(range(400), **how).draw(logits).tolist()))  # pyright: ignore[reportArgumentType]

    assert drawn() == [0, 1, 2, 3]
    assert drawn(top_k=2) == [2, 3]
    assert drawn(temperature=0.05) == [3]
    assert drawn(temperature=0) == [3]


@pytest.mark.parametrize(("how", "message"), [({"temperature": -1.0}, "found -1.0"), ({"top_k": 0}, "found 0")])
def test_sampler_refuses_what_is_no_such_number(how: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler([0], **how)  # pyright: ignore[reportArgumentType]


def test_encoder_decoder_padding_of_the_source_and_later_targets_are_not_seen() -> None:
    network = an_encoder_decoder()
    network.eval().source_tokens.weight.data[0] = 1e3  # what is seen of padding would show

    def told(source: list[int], target: list[int]) -> Tensor:
        return network(torch.tensor([source + [0] * (6 - len(source)) + target]))

    expected = told([3, 4, 5], [BEGIN, 6, 7])

    torch.testing.assert_close(told([3, 4, 5], [BEGIN, 6, 9])[:, :2], expected[:, :2])
    network.source_tokens.weight.data[0] = -1e3
    torch.testing.assert_close(told([3, 4, 5], [BEGIN, 6, 7]), expected)
    assert not torch.allclose(told([3, 4, 6], [BEGIN, 6, 7]), expected)


def test_encoder_decoder_learns_to_turn_sequences_round() -> None:
    network = an_encoder_decoder().train()
    source = torch.tensor([[3, 4, 5, 0], [6, 7, 0, 0], [8, 9, 10, 3], [5, 8, 0, 0]])
    source = functional.pad(source, (0, 2))
    target = torch.tensor([[5, 4, 3, END, 0], [7, 6, END, 0, 0], [3, 10, 9, 8, END], [8, 5, END, 0, 0]])
    so_far = torch.cat([torch.full((4, 1), BEGIN), target[:, :-1]], dim=1)
    loss = trained(
        network,
        lambda: functional.cross_entropy(
            network(torch.cat([source, so_far], dim=1)).flatten(0, 1), target.flatten(), ignore_index=0
        ),
        100,
    )

    assert loss < 0.05
    drawn = list(network.eval().generate(source, 5, Sampler([0] * 4, 0), begin=BEGIN))
    written = torch.stack(drawn, dim=1)
    assert torch.equal(written.where(target != 0, 0), target)
    again = torch.cat([source, torch.full((4, 1), BEGIN), written[:, :-1]], dim=1)
    assert torch.equal(network(again).argmax(dim=2), written), "with all that was written before read again"


def test_encoder_decoder_longer_sequences_than_was_said_are_refused() -> None:
    with pytest.raises(ModelError, match="a source of up to 6 tokens; found 7"):
        next(an_encoder_decoder().generate(torch.ones(1, 7), 1, Sampler([0], 0), begin=BEGIN))
    with pytest.raises(ModelError, match="a target of up to 6 tokens; found 7"):
        an_encoder_decoder()(torch.ones(1, 6 + 7))


def test_heads_that_do_not_divide_the_width_are_refused_with_a_width_that_fits() -> None:
    with pytest.raises(ValidationError, match=r"dim=30 does not split over num_heads=4; use dim=32"):
        GptModel(kind="gpt", dim=30, num_heads=4)
