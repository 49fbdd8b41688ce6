"""What each network of the zoo promises beside the contract: depth, norms, levels, padding, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from raypipe.errors import ModelError
from raypipe.model.build import build_model
from raypipe.model.engines import AnsweringNetwork
from raypipe.model.engines.traced import Traced
from raypipe.model.tasks.classification import Classification
from raypipe.model.trainable import check_trainable
from raypipe.records import Column, DatasetVersion, Signature
from raypipe.spec.model import Model
from raypipe.spec.text_transforms import TokensTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset

NEW = {
    "resnet": {"channels": [4, 8], "blocks_per_stage": 1},
    "audio_cnn": {"channels": [4, 8]},
    "transformer": {"dim": 8, "num_layers": 2, "num_heads": 2},
}
"""Kind -> small sizes; each reads [8, 12]."""


def spec_of(**fields: Any) -> Model:
    return TypeAdapter[Model](Model).validate_python(fields)


def built(shape: tuple[int, ...], **fields: Any) -> Any:
    torch.manual_seed(0)
    inputs = (Column(name="x", dtype="float32", shape=shape),)
    signature = Signature(inputs=inputs, task="classification", target="y", classes=("a", "b", "c"))
    return build_model(spec_of(**fields), signature, shape, None).eval()


def texts(store: LocalFolder, **tokens: Any) -> DatasetVersion:
    values = np.array(["the cat sat", "a dog", "the dog ran off", "cat"] * 3, object)
    transform = TokensTransform.model_validate({"kind": "tokens", "columns": ["text"], "max_length": 6, **tokens})
    return tiny_dataset(store, {"text": values}, np.arange(12) % 2, transforms=[transform])


@pytest.mark.thorough
@pytest.mark.parametrize("kind", NEW)
def test_tracer_and_compiler_take_the_network_whole(kind: str) -> None:
    network = built((8, 12), kind=kind, **NEW[kind])
    rows = torch.randn(5, 8, 12)
    answering = AnsweringNetwork(network, Classification.read_output)
    with torch.no_grad():
        expected = answering(rows).numpy()

    np.testing.assert_allclose(Traced(answering, [rows[:2].numpy()])(rows.numpy()), expected, atol=1e-6)
    # fullgraph refuses whatever would make the compiler give up; `eager` spares the C++ compiler
    whole = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(rows), network(rows))


@pytest.mark.parametrize("kind", NEW)
def test_blocks_that_repeat_lie_in_a_module_list(kind: str) -> None:
    network = built((8, 12), kind=kind, **NEW[kind])
    assert isinstance(network.blocks, nn.ModuleList)
    assert len(network.blocks) == 2


@pytest.mark.parametrize("kind", NEW)
def test_every_parameter_learns_from_the_first_step(kind: str) -> None:
    network = built((8, 12), kind=kind, **NEW[kind])
    assert check_trainable(network, kind, (8, 12)) == []
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_resnet_depth_is_stages_times_blocks_of_two_convolutions() -> None:
    network = built((3, 32, 32), kind="resnet", channels=[16, 32, 64], blocks_per_stage=3)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == 20  # and the head: the article's ResNet-20
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_resnet_norm_of_groups_answers_a_row_alike_in_any_batch_and_that_of_batches_does_not() -> None:
    rows = torch.randn(6, 8, 8)

    def moves(norm: str) -> bool:
        network = built((8, 8), kind="resnet", channels=[8], norm=norm).train()
        return not torch.allclose(network(rows)[:2], network(rows[:2]), atol=1e-5)

    assert moves("batch") and not moves("group")


@pytest.mark.parametrize(("level", "is_same"), [("none", False), ("sound", True), ("bands", True)])
def test_audio_cnn_loudness_counts_only_where_no_level_is_taken_off(level: str, is_same: bool) -> None:
    network = built((16, 20), kind="audio_cnn", channels=[8], level=level)
    sound = torch.randn(2, 16, 20)
    louder = sound + 2.3  # ten times the power, in a natural logarithm
    assert torch.allclose(network(sound), network(louder), atol=1e-4) == is_same


def test_audio_cnn_level_of_bands_takes_off_what_a_microphone_adds() -> None:
    network = built((16, 20), kind="audio_cnn", channels=[8], level="bands")
    sound, microphone = torch.randn(2, 16, 20), torch.randn(16, 1)
    torch.testing.assert_close(network(sound), network(sound + microphone), atol=1e-4, rtol=0)


def test_audio_cnn_when_a_sound_is_heard_hardly_counts() -> None:
    network = built((16, 64), kind="audio_cnn", channels=[8, 8], level="none")
    sound = torch.zeros(1, 16, 64)
    sound[:, :, 8:24] = torch.randn(16, 16)
    torch.testing.assert_close(network(sound), network(sound.roll(16, dims=2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("positions", "order_counts"), [("learned", True), ("sinusoidal", True), ("none", False)])
def test_transformer_order_counts_where_there_are_positions(positions: str, order_counts: bool) -> None:
    network = built((6, 4), kind="transformer", positions=positions)
    rows = torch.randn(2, 6, 4)
    assert torch.allclose(network(rows), network(rows.flip(1)), atol=1e-5) != order_counts


@pytest.mark.parametrize(("padding", "is_left_out"), [("zeros", True), ("none", False)])
def test_transformer_places_of_zeros_are_padding_where_the_file_says_so(padding: str, is_left_out: bool) -> None:
    network = built((6, 4), kind="transformer", padding=padding)
    rows = torch.randn(1, 6, 4)
    rows[:, 4:] = 0
    before = network(rows)

    nn.init.normal_(network.positions.learned_TD[4:])  # what padded places would bring in

    assert torch.allclose(network(rows), before, atol=1e-5) == is_left_out
    assert torch.isfinite(network(torch.zeros(1, 6, 4))).all()


def test_transformer_reads_token_ids_and_leaves_their_padding_out(store: LocalFolder) -> None:
    dataset = texts(store, tokenizer="word", max_vocabulary=50)
    torch.manual_seed(0)
    network: Any = build_model(
        spec_of(kind="transformer"),
        dataset.signature,
        dataset.feature_shape,
        None,
        transforms=dataset.transforms,
    ).eval()
    ids = torch.tensor([[2.0, 3.0, 4.0, 0.0, 0.0, 0.0]])
    before = network(ids)

    nn.init.normal_(network.positions.learned_TD[3:])

    assert network.tokens.weight.shape == (50, 64)
    torch.testing.assert_close(network(ids), before)
    assert torch.isfinite(network(torch.zeros(1, 6))).all()  # an empty text is nothing but padding


def test_transformer_bytes_have_258_ids(store: LocalFolder) -> None:
    dataset = texts(store, tokenizer="byte")
    network: Any = build_model(
        spec_of(kind="transformer"), dataset.signature, dataset.feature_shape, None, transforms=dataset.transforms
    )
    assert network.tokens.weight.shape == (258, 64)


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((4,), {"kind": "resnet"}, r"resnet reads one image .* but a row here has \[4\]"),
        ((32, 32, 3), {"kind": "resnet"}, r"\[32, 32, 3\], which looks like \[H, W, C\]"),
        ((3, 8, 3), {"kind": "resnet"}, r"2 stages after the first, each halving .* needs at least 4x4 pixels"),
        ((2, 8, 8), {"kind": "audio_cnn"}, r"audio_cnn reads one sound of shape \[mel bands, moments\]"),
        ((4, 60), {"kind": "audio_cnn"}, r"3 blocks, .* at least 8x8 bands and moments; the data has 4x60"),
        ((7,), {"kind": "transformer"}, r"numbers \[T, F\] or of token ids \[T\], but a row here has \[7\]"),
        ((1, 2, 3), {"kind": "transformer"}, r"a row here has \[1, 2, 3\]"),
    ],
)
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        built(shape, **fields)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "transformer", "dim": 10, "num_heads": 4}, r"dim=10 does not split over num_heads=4; use dim=8"),
        ({"kind": "transformer", "dim": 9, "num_heads": 3, "positions": "sinusoidal"}, "needs an even dim"),
        ({"kind": "resnet", "channels": []}, "channels"),
        ({"kind": "resnet", "blocks_per_stage": 0}, "blocks_per_stage"),
        ({"kind": "audio_cnn", "level": "loud"}, "level"),
    ],
)
def test_sizes_that_make_no_network_are_refused_by_the_file(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(**fields)


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "store"))
