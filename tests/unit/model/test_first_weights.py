"""What a network takes from another's weights, and what it says of those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.first_weights import start_from
from raypipe.spec.model import Model


def network(num_outputs: int = 2, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, num_outputs))


def spec(**fields: Any) -> Model:
    made = {"kind": "linear", "init_from": "digits@3", **fields}
    return TypeAdapter[Model](Model).validate_python(made)


def file_of(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})


def test_weights_of_the_same_network_are_taken_whole_with_running_averages() -> None:
    first, other = network(seed=1), network(seed=2)
    other(torch.randn(8, 3))

    text = start_from(first, spec(), file_of(other.state_dict()))

    assert text == "starts from digits@3: 9 of the network's 9 tensors fit"
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())


def test_weights_of_less_precision_are_taken_as_float32() -> None:
    first, other = network(seed=1), network(seed=2)
    halves = {name: v.half() if v.is_floating_point() else v for name, v in other.state_dict().items()}

    start_from(first, spec(), file_of(halves))

    assert first[0].weight.dtype == torch.float32
    torch.testing.assert_close(first[0].weight, other[0].weight, atol=1e-3, rtol=0)


def test_head_of_another_width_begins_anew_where_the_file_says_so() -> None:
    first, other = network(5, seed=1), network(2, seed=2)
    head = first[2].weight.clone()

    text = start_from(first, spec(init_partial=True), file_of(other.state_dict()))

    assert torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(first[2].weight, head)
    assert text == (
        "starts from digits@3: 7 of the network's 9 tensors fit; "
        "2 have another shape or type (2.weight [2, 4], here [5, 4], 2.bias [2], here [5])"
    )


def test_whole_numbers_are_not_taken_for_weights() -> None:
    tensors = {name: value.to(torch.int8) for name, value in network().state_dict().items()}
    with pytest.raises(ModelError, match=r"8 have another shape or type \(0.weight int8, here float32,"):
        start_from(network(), spec(), file_of(tensors))


def test_weights_that_differ_are_refused_with_counts_and_first_names() -> None:
    first = network(5)
    tensors = {**network(2).state_dict(), **{f"extra{i}": torch.zeros(1) for i in range(5)}}
    del tensors["0.bias"]
    before = {name: value.clone() for name, value in first.state_dict().items()}

    with pytest.raises(ModelError) as caught:
        start_from(first, spec(), file_of(tensors))

    assert caught.value.message == (
        "model.init_from: digits@3 does not fit the network: 6 of the network's 9 tensors fit; "
        "1 is missing there (0.bias); 5 are not known here (extra0, extra1, extra2 and 2 more); "
        "2 have another shape or type (2.weight [2, 4], here [5, 4], 2.bias [2], here [5])"
    )
    assert "init_partial: true" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("there", "here", "hint"),
    [
        ("module.0.weight", "0.weight", "begin with 'module.': save the weights without it"),
        ("weight", "0.weight", "names here begin with '0.': save the weights with it"),
        ("conv", "0.weight", "weights of another network"),
    ],
)
def test_weights_of_which_no_name_fits_are_refused_even_in_part(there: str, here: str, hint: str) -> None:
    with pytest.raises(ModelError, match=r"0 of the network's 9 tensors fit") as caught:
        start_from(network(), spec(init_partial=True), file_of({there: network().state_dict()[here]}))
    assert hint in caught.value.hint


@pytest.mark.parametrize("damaged", [b"", b"no header at all", b"\xff" * 64, file_of({"a": torch.ones(9)})[:-3]])
def test_file_that_holds_no_tensors_is_told(damaged: bytes) -> None:
    with pytest.raises(ModelError, match=r"model\.init_from: digits@3 is no whole safetensors file"):
        start_from(network(), spec(), damaged)


def test_weights_that_are_no_numbers_are_refused() -> None:
    tensors = network().state_dict()
    tensors["2.bias"][0] = float("nan")
    with pytest.raises(ModelError, match=r"'2\.bias' holds NaN or infinite values"):
        start_from(network(), spec(), file_of(tensors))


@pytest.mark.parametrize("source", ["digits@3", "digits@champion", "weights.safetensors", "../there/w.safetensors"])
def test_source_is_a_version_or_a_file(source: str) -> None:
    assert spec(init_from=source).init_from == source


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_from": "model.pt"}, r"must be MODEL@VERSION, .* which may hold code"),
        ({"init_from": "digits"}, "must be MODEL@VERSION"),
        ({"init_from": "digits@"}, "must be MODEL@VERSION"),
        ({"init_from": "s3://bucket/w.safetensors"}, "a file of this machine"),
        ({"init_from": None, "init_partial": True}, "give init_from"),
    ],
)
def test_source_of_another_kind_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_architecture_leaves_out_where_weights_come_from_and_shaping_what_is_not_set() -> None:
    assert spec().architecture() == {"kind": "linear"}
    assert spec().shaping() == {"kind": "linear"}
    assert spec(frozen=["*.bias"], init_partial=True).shaping() == {
        "kind": "linear",
        "frozen": ["*.bias"],
        "init_partial": True,
    }
