from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raypipe.errors import ArtifactError, DigestMismatch, NonFiniteLossError
from raypipe.model.artifact import DESCRIPTION, WEIGHTS, read_artifact, write_artifact
from raypipe.model.build import build_model
from raypipe.records import DatasetVersion
from raypipe.spec.model import CnnModel, ImportModel, LinearModel, MlpModel, Model
from raypipe.storage.local import LocalFolder

CodeDir = Callable[..., Path]
OWN = ImportModel(kind="import", path="model.py:build")
TIED = """
from torch import nn
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Linear(4, 4)
        self.up = nn.Linear(4, 4)
        self.up.weight = self.down.weight
        self.out = nn.Linear(4, 1)
    def forward(self, x):
        return self.out(self.up(self.down(x)))
def build():
    return Tied()
"""


@pytest.mark.parametrize(
    "spec",
    [
        LinearModel(kind="linear"),
        MlpModel(kind="mlp", hidden=[8], dropout_frac=0.2),
        CnnModel(kind="cnn", channels=[4]),
    ],
    ids=["linear", "mlp", "cnn"],
)
def test_artifact_written_and_read_answers_to_the_bit(spec: Model, store: LocalFolder, images: DatasetVersion) -> None:
    module = build_model(spec, images.signature, images.feature_shape, None)

    ref = write_artifact(store, "a", module, spec, images)
    artifact, loaded = read_artifact(store, ref)

    pixels = torch.rand(3, 6, 6)
    assert torch.equal(module.eval()(pixels), loaded(pixels))
    assert not loaded.training
    assert (artifact.signature, artifact.transforms) == (images.signature, images.transforms)


def test_artifact_of_tied_weights_is_tied_again_when_read(
    store: LocalFolder, table: DatasetVersion, code_dir: CodeDir
) -> None:
    folder = code_dir(TIED)
    module = build_model(OWN, table.signature, (4,), folder)

    _, loaded = read_artifact(store, write_artifact(store, "a", module, OWN, table, code_dir=folder), code_dir=folder)

    assert torch.equal(module(torch.ones(1, 4)), loaded(torch.ones(1, 4)))
    assert loaded.get_parameter("up.weight") is loaded.get_parameter("down.weight")


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_artifact_with_a_flipped_bit_is_refused(file: str, store: LocalFolder, images: DatasetVersion) -> None:
    ref = write_artifact(store, "a", _linear(images), LinearModel(kind="linear"), images)
    data = bytearray(store.read(f"a/{file}"))
    data[-5] ^= 1
    store.write(f"a/{file}", bytes(data))

    with pytest.raises(DigestMismatch, match=f"a/{file} is damaged"):
        read_artifact(store, ref)


def test_artifact_replaced_by_another_is_not_the_one_the_record_names(
    store: LocalFolder, images: DatasetVersion
) -> None:
    ref = write_artifact(store, "a", _linear(images), LinearModel(kind="linear"), images)
    write_artifact(store, "a", _linear(images), LinearModel(kind="linear"), images)

    with pytest.raises(DigestMismatch, match="holds other files than the record"):
        read_artifact(store, ref)


def test_artifact_of_own_code_that_changed_since_is_refused(
    store: LocalFolder, table: DatasetVersion, code_dir: CodeDir
) -> None:
    folder = code_dir(TIED)
    module = build_model(OWN, table.signature, (4,), folder)
    ref = write_artifact(store, "a", module, OWN, table, code_dir=folder)
    changed = code_dir(TIED.replace("self.up(self.down(x))", "self.down(self.up(x))"), "b")

    with pytest.raises(
        ArtifactError, match=r"not the source this model was trained with: model\.py changed or missing"
    ):
        read_artifact(store, ref, code_dir=changed)


def test_artifact_of_own_code_whose_helper_changed_since_is_refused(
    store: LocalFolder, table: DatasetVersion, code_dir: CodeDir
) -> None:
    folder = code_dir("from parts import layers\n" + TIED)
    (folder / "parts").mkdir()
    (folder / "parts" / "layers.py").write_text("WIDTH = 3\n")
    module = build_model(OWN, table.signature, (4,), folder)
    ref = write_artifact(store, "a", module, OWN, table, code_dir=folder)
    (folder / "parts" / "layers.py").write_text("WIDTH = 4\n")

    with pytest.raises(ArtifactError, match=r"trained with: parts/layers\.py changed or missing"):
        read_artifact(store, ref, code_dir=folder)


def test_artifact_of_own_code_is_read_where_the_folder_holds_more_files(
    store: LocalFolder, table: DatasetVersion, code_dir: CodeDir
) -> None:
    folder = code_dir(TIED)
    module = build_model(OWN, table.signature, (4,), folder)
    ref = write_artifact(store, "a", module, OWN, table, code_dir=folder)
    (folder / "ignored_by_git.py").write_text("not sent to a cluster\n")

    assert read_artifact(store, ref, code_dir=folder)[0].code.keys() == {"model.py"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_artifact_weight_that_is_not_finite_is_never_written(
    value: float, store: LocalFolder, images: DatasetVersion
) -> None:
    module = _linear(images)
    with torch.no_grad():
        next(module.parameters())[0, 0] = value

    with pytest.raises(NonFiniteLossError, match=r"weight '1\.weight' holds NaN or infinite"):
        write_artifact(store, "a", module, LinearModel(kind="linear"), images)
    assert not list(store.list("a"))


def test_artifact_of_a_later_format_is_refused_with_its_name(store: LocalFolder, images: DatasetVersion) -> None:
    from raypipe.storage.publish import publish

    ref = write_artifact(store, "a", _linear(images), LinearModel(kind="linear"), images)
    files = {DESCRIPTION: store.read(f"a/{DESCRIPTION}").replace(b'"format": 1', b'"format": 2')}
    later = publish(store, "a", {**files, WEIGHTS: store.read(f"a/{WEIGHTS}")})

    with pytest.raises(ArtifactError, match="is not an artifact this raypipe reads"):
        read_artifact(store, ref.model_copy(update={"digest": later.digest}))


def _linear(dataset: DatasetVersion) -> nn.Module:
    return build_model(LinearModel(kind="linear"), dataset.signature, dataset.feature_shape, None)
