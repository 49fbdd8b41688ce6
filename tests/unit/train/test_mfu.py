"""FLOPs of a row, against hand counts; and the peaks they are held against."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raypipe.model.zoo.gpt import Gpt
from raypipe.spec.model import GptModel
from raypipe.spec.train import Precision, TrainSpec
from raypipe.train.mfu import PEAKS, DeviceUse, allows_tf32, flops_of_a_row, peak_flops
from raypipe.train.rows import World

IN, HIDDEN, OUT = 5, 7, 3


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(IN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))


def test_flops_of_a_small_mlp_are_those_counted_by_hand() -> None:
    forward = 2 * (IN * HIDDEN + HIDDEN * OUT)
    of_weights, of_hidden = forward, 2 * HIDDEN * OUT  # nobody asks for the gradient of the features

    assert flops_of_a_row(_mlp(), (IN,), 8) == forward + of_weights + of_hidden


def test_flops_of_frozen_layers_have_no_gradient_of_weights() -> None:
    module = _mlp()
    module[0].requires_grad_(False)

    # The normalization between the two still learns, so the gradient comes as far as it.
    assert flops_of_a_row(module, (IN,), 4) == 2 * (IN * HIDDEN + HIDDEN * OUT) + 2 * 2 * HIDDEN * OUT


def test_flops_of_a_convolution_are_those_counted_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    convolution, linear = 2 * 6 * 6 * 4 * 2 * 3 * 3, 2 * 4 * 6 * 6 * 2

    assert flops_of_a_row(module, (2, 6, 6), 3) == 2 * convolution + 3 * linear


def test_flops_of_a_gpt_are_those_of_its_matrices_and_its_attention() -> None:
    dim, layers, length, vocabulary = 8, 2, 6, 11
    module = Gpt(GptModel(kind="gpt", dim=dim, num_layers=layers, num_heads=2), vocabulary, length)
    of_matrices = 2 * length * (12 * dim**2 * layers + vocabulary * dim)
    of_attention = 2 * 2 * length**2 * dim * layers

    assert flops_of_a_row(module, (length,), 4) == 3 * (of_matrices + of_attention)


def test_counting_changes_neither_the_network_nor_random_numbers() -> None:
    module = nn.Sequential(_mlp(), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()

    assert flops_of_a_row(module, (IN,), 8)

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_network_that_looks_at_its_rows_is_not_counted() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(IN, OUT)

        def forward(self, features: Tensor) -> Tensor:
            return self.layer(features) * (2.0 if float(features.sum()) > 0 else 1.0)

    assert flops_of_a_row(Looking(), (IN,), 8) is None


@pytest.mark.parametrize(
    ("name", "precision", "allows_tf32", "teraflops"),
    [
        ("NVIDIA H200", "bfloat16", False, 989.5),
        ("NVIDIA A100-SXM4-80GB", "float32", False, 19.5),
        ("NVIDIA A100-SXM4-80GB", "float32", True, 156.0),
        ("Tesla T4", "float32", True, 8.1),
        ("Tesla T4", "float16", False, 65.0),
    ],
)
def test_peak_is_that_of_the_precision(name: str, precision: Precision, allows_tf32: bool, teraflops: float) -> None:
    assert peak_flops(name, precision, allows_tf32=allows_tf32) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090", ""])
def test_peak_of_a_gpu_that_is_not_in_the_table_is_not_told(name: str) -> None:
    assert peak_flops(name, "bfloat16", allows_tf32=False) is None


def test_float32_is_held_against_tf32_where_torch_lets_a_layer_use_it() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision

    assert not allows_tf32(_mlp())
    assert allows_tf32(nn.Conv2d(1, 2, 3)), "torch's own setting for convolutions"
    try:
        matmul.fp32_precision = "tf32"
        assert allows_tf32(_mlp())
    finally:
        matmul.fp32_precision = before


def test_peaks_grow_with_fewer_bits() -> None:
    for name, peak in PEAKS.items():
        assert peak.float32 < (peak.tf32 or peak.float16) <= peak.float16, name


def test_use_of_a_device_is_not_told_on_a_cpu() -> None:
    use = DeviceUse(TrainSpec(), World(), _mlp(), (IN,), counts=True)

    assert use.share(1000.0) is None


def test_use_of_gpus_is_what_their_rows_take_by_what_all_of_them_could_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    world = World(rank=0, size=2, device=torch.device("cuda"))
    flops = flops_of_a_row(_mlp(), (IN,), 4)
    assert flops is not None

    use = DeviceUse(TrainSpec(precision="bfloat16"), world, _mlp(), (IN,), counts=True)

    assert use.share(1e12) == pytest.approx(1e12 * flops / (2 * 989.5e12), rel=1e-4)
    assert use.share(float("nan")) is None
    assert DeviceUse(TrainSpec(), world, _mlp(), (IN,), counts=False).share(1e12) is None, "of the user's own step"
