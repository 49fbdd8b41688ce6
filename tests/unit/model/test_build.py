from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from raypipe.errors import ModelError
from raypipe.model.build import build_model, outline
from raypipe.records import DatasetVersion
from raypipe.spec.model import CnnModel, GptModel, ImportModel, LinearModel, MlpModel, Model
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_text

CodeDir = Callable[..., Path]
OWN = ImportModel(kind="import", path="model.py:build")


def _build(spec: Model, dataset: DatasetVersion, code_dir: Path | None = None) -> nn.Module:
    return build_model(spec, dataset.signature, dataset.feature_shape, code_dir)


@pytest.mark.parametrize(
    ("spec", "num_parameters"),
    [
        (LinearModel(kind="linear"), 36 * 3 + 3),
        (MlpModel(kind="mlp", hidden=[8], dropout_frac=0.5), 36 * 8 + 8 + 8 * 3 + 3),
        (CnnModel(kind="cnn", channels=[4]), 4 * 9 + 2 * 4 + 4 * 9 * 3 + 3),
    ],
    ids=["linear", "mlp", "cnn"],
)
def test_build_model_of_the_zoo_answers_one_value_a_class(
    spec: Model, num_parameters: int, images: DatasetVersion
) -> None:
    module = _build(spec, images)

    assert module(torch.zeros(5, 6, 6)).shape == (5, 3)
    assert sum(p.numel() for p in module.parameters()) == num_parameters


def test_build_model_same_torch_seed_gives_the_same_weights(images: DatasetVersion) -> None:
    weights: list[torch.Tensor] = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(torch.cat([p.flatten() for p in _build(MlpModel(kind="mlp", hidden=[8]), images).parameters()]))

    assert torch.equal(*weights)


class Called(TorchDispatchMode):
    """Notes what torch's kernels are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_outline_of_embeddings_draws_no_normal_numbers_which_imports_the_compiler_of_torch(store: LocalFolder) -> None:
    spec = GptModel(kind="gpt", dim=8, num_layers=1, num_heads=2)
    dataset = tiny_text(store, "the cat sat on the mat. " * 20)
    made_for = (dataset.signature, dataset.feature_shape)
    with Called() as built:
        module = build_model(spec, *made_for, None, transforms=dataset.transforms)
    with Called() as outlined:
        outlines = outline(spec, *made_for, dataset.transforms)

    assert {name: p.shape for name, p in outlines.named_parameters()} == {
        n: p.shape for n, p in module.named_parameters()
    }
    assert all(parameter.is_meta for parameter in outlines.parameters())
    assert "aten.normal_.default" in built.names - outlined.names


def test_build_model_cnn_on_a_table_names_the_shape(table: DatasetVersion) -> None:
    with pytest.raises(ModelError, match=r"cnn reads one image .* but a row here has \[4\]"):
        _build(CnnModel(kind="cnn", channels=[4]), table)


def test_build_model_cnn_with_more_blocks_than_pixels_says_how_many_fit(images: DatasetVersion) -> None:
    with pytest.raises(ModelError, match="needs at least 8x8 pixels; the data has 6x6"):
        _build(CnnModel(kind="cnn", channels=[4, 4, 4]), images)


def test_build_model_own_network_gets_shape_and_width_from_the_data(images: DatasetVersion, code_dir: CodeDir) -> None:
    folder = code_dir(
        "from torch import nn\n"
        "def build(input_shape, num_outputs, hidden):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(36, hidden), nn.Linear(hidden, num_outputs))\n"
    )

    module = _build(ImportModel(kind="import", path="model.py:build", args={"hidden": 7}), images, folder)

    assert module(torch.zeros(2, 6, 6)).shape == (2, 3)


def test_build_model_two_folders_with_a_model_py_each_gets_its_own(table: DatasetVersion, code_dir: CodeDir) -> None:
    source = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(4, {}), nn.Linear({}, 1))\n"
    first, second = code_dir(source.format(2, 2), "a"), code_dir(source.format(9, 9), "b")

    widths = [next(_build(OWN, table, folder).parameters()).shape[0] for folder in (first, second, first)]

    assert widths == [2, 9, 2]


def test_build_model_two_folders_with_a_helper_of_one_name_each_gets_its_own(
    table: DatasetVersion, code_dir: CodeDir
) -> None:
    source = (
        "from torch import nn\nfrom widths import W\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, W), nn.Linear(W, 1))\n"
    )
    folders = [code_dir(source + f"# {width}\n", str(width)) for width in (2, 9)]
    for width, folder in zip((2, 9), folders, strict=True):
        (folder / "widths.py").write_text(f"W = {width}\n")

    widths = [next(_build(OWN, table, folder).parameters()).shape[0] for folder in (*folders, folders[0])]

    assert widths == [2, 9, 2]


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("import nothing_of_that_name\ndef build(): ...", "model.py:build", "no module 'nothing_of_that_name' here"),
        ("1 / 0\ndef build(): ...", "model.py:build", "failed while being imported: ZeroDivisionError"),
        ("def other(): ...", "model.py:build", "no function or class 'build'"),
        ("build = 3", "model.py:build", "names no function of that module"),
        ("def build(hidden): ...", "model.py:build", r"cannot be called with \[\]: missing a required argument"),
        ("def build(): return 'text'", "model.py:build", "returned str; it must return a torch.nn.Module"),
        ("class build(dict): ...", "model.py:build", "does not tell its parameters: no signature found"),
        ("def build(): raise KeyError('boom')", "model.py:build", "failed with .*KeyError: 'boom'"),
        ("def build(): return len(3)", "model.py:build", "failed with .*TypeError: object of type 'int'"),
        ("raise SystemExit(3)\ndef build(): ...", "model.py:build", "failed while being imported: SystemExit: 3"),
        ("", "absent.py:build", r"absent\.py does not exist"),
    ],
)
def test_build_model_own_code_that_does_not_work_says_why(
    source: str, path: str, message: str, table: DatasetVersion, code_dir: CodeDir
) -> None:
    with pytest.raises(ModelError, match=message):
        _build(ImportModel(kind="import", path=path), table, code_dir(source))


def test_build_model_output_that_does_not_fit_the_target_is_refused(images: DatasetVersion, code_dir: CodeDir) -> None:
    folder = code_dir("from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(36, 10))\n")

    with pytest.raises(ModelError, match=r"answers \[2, 10\] for 2 rows, but the target 'y' is 3 classes") as caught:
        _build(OWN, images, folder)
    assert "must answer [2, 3]" in caught.value.message


def test_build_model_layer_that_cannot_read_the_features_is_refused(images: DatasetVersion, code_dir: CodeDir) -> None:
    folder = code_dir("from torch import nn\ndef build(): return nn.Linear(99, 3)\n")

    with pytest.raises(ModelError, match=r"cannot read rows of shape \[6, 6\]: RuntimeError"):
        _build(OWN, images, folder)


ANSWERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)

    def forward(self, rows):
        logits = self.layer(rows.flatten(1))
        return {answer}

def build():
    return Net()
"""


def test_build_model_logits_of_a_mapping_are_the_answer_and_weights_keep_their_names(
    images: DatasetVersion, code_dir: CodeDir
) -> None:
    module = _build(OWN, images, code_dir(ANSWERS.format(answer="{'loss': None, 'logits': logits}")))

    copied = copy.deepcopy(module).train()

    assert list(module.state_dict()) == ["layer.weight", "layer.bias"]
    rows = torch.randn(4, 6, 6)
    assert copied(rows).shape == (4, 3)
    assert torch.equal(copied(rows), module(rows))


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        ("{'hidden': logits}", "answers a dict with 'hidden'; it must answer one tensor", "output['hidden']"),
        ("{'logits': None}", "answers a dict with 'logits'; it must answer one tensor", "let forward return"),
        ("{'logits': logits[:, :2]}", r"answers \[2, 2\] for 2 rows, but the target 'y' is 3 classes", "num_outputs"),
        ("(logits, logits)", "answers a tuple of Tensor, Tensor", "the one tensor"),
    ],
)
def test_build_model_answer_that_is_no_tensor_of_the_target_is_refused(
    answer: str, message: str, hint: str, images: DatasetVersion, code_dir: CodeDir
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        _build(OWN, images, code_dir(ANSWERS.format(answer=answer)))
    assert hint in caught.value.hint
