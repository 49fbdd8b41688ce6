"""Networks of Hugging Face and timm, made from a config with random weights, go the whole way as one's own do.

So do those of installed packages that are named by their path.

The extra `raypipe[transformers]` has the first; timm is installed by whoever uses it, with the torchvision that fits
the torch there.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from raypipe.data.shards import load_rows
from raypipe.errors import ModelError
from raypipe.model.predictor import Predictor
from raypipe.records import ArtifactRef, DatasetVersion
from raypipe.spec.code import ALLOW_MODULES
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.transforms import Transform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.loop import run
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

VIT = """
from transformers import ViTConfig, ViTForImageClassification

def build(input_shape, num_outputs):
    channels, height, width = input_shape
    return ViTForImageClassification(
        ViTConfig(image_size=height, patch_size=4, num_channels=channels, hidden_size=16, num_hidden_layers=1,
                  num_attention_heads=2, intermediate_size=32, num_labels=num_outputs)
    )
"""

BERT = """
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

class Texts(nn.Module):
    '''Ids come as float32, and 0 is padding.'''

    def __init__(self, length, num_outputs):
        super().__init__()
        self.bert = BertForSequenceClassification(
            BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                       max_position_embeddings=length, num_labels=num_outputs)
        )

    def forward(self, ids):
        return self.bert(ids.long(), attention_mask=(ids != 0).long())

def build(input_shape, num_outputs):
    return Texts(input_shape[0], num_outputs)
"""

TIMM = """
import timm

def build(input_shape, num_outputs):
    return timm.create_model("resnet10t", pretrained=False, num_classes=num_outputs, in_chans=input_shape[0])
"""


def needs(library: str) -> None:
    """Skip, with the reason, where a library is not there or does not load beside this torch."""
    try:
        importlib.import_module(library)
    except Exception as error:  # torchvision, which timm imports, raises RuntimeError beside another build of torch
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        pytest.skip(f"{library} does not load here: {reason}")


def images(store: LocalFolder) -> DatasetVersion:
    """Bright images and dark ones, [3, 32, 32]."""
    label_B = np.arange(80) % 2
    pixels = np.random.default_rng(0).normal(size=(80, 3, 32, 32)) + 2.0 * label_B[:, None, None, None]
    return tiny_dataset(store, {"image": pixels.astype(np.float32)}, label_B, num_val=20)


def table(store: LocalFolder) -> DatasetVersion:
    """Three numbers, whose first tells the class."""
    label_B = np.arange(80) % 2
    x = np.random.default_rng(0).normal(size=(80, 3)) + 4.0 * label_B[:, None]
    return tiny_dataset(store, {"x": x.astype(np.float32)}, label_B, num_val=20)


def texts(store: LocalFolder) -> DatasetVersion:
    label_B = np.arange(80) % 2
    words = np.array(["a good day", "a bad night, alas"], object)[label_B]
    tokens = {"kind": "tokens", "columns": ["text"], "tokenizer": "word", "max_length": 8, "max_vocabulary": 40}
    transform = TypeAdapter[Any](Transform).validate_python(tokens)
    return tiny_dataset(store, {"text": words}, label_B, transforms=[transform], num_val=20)


@pytest.mark.parametrize(
    ("library", "source", "data"),
    [("transformers", VIT, images), ("transformers", BERT, texts), ("timm", TIMM, images)],
    ids=["vit", "bert", "timm"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the libraries themselves
def test_network_of_another_library_trains_is_packaged_and_answers(
    library: str, source: str, data: Any, tmp_path: Path
) -> None:
    needs(library)
    (tmp_path / f"other_{library}.py").write_text(source)
    goes_the_whole_way({"path": f"other_{library}.py:build"}, data, tmp_path)


@pytest.mark.parametrize(
    ("path", "args", "data", "lr"),
    [
        ("torch.nn.modules.linear:Linear", {"in_features": 3, "out_features": 2}, table, 0.2),
        ("torchvision.models.resnet:resnet18", {"num_classes": 2}, images, 0.003),
        ("timm.models.resnet:resnet10t", {"num_classes": 2, "in_chans": 3}, images, 0.003),
    ],
    ids=["torch", "torchvision", "timm"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_network_that_an_installed_package_offers_is_named_by_its_path(
    path: str, args: dict[str, Any], data: Any, lr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = path.partition(":")[0]
    needs(module.partition(".")[0])
    monkeypatch.setenv(ALLOW_MODULES, module)
    artifact = goes_the_whole_way({"path": path, "args": args}, data, tmp_path, lr)
    monkeypatch.setenv(ALLOW_MODULES, "")
    with pytest.raises(ModelError, match=f"'{module}' is .*module"):
        Predictor.load(LocalFolder(str(tmp_path / "store")), artifact, code_dir=tmp_path)


def goes_the_whole_way(model: dict[str, Any], data: Any, folder: Path, lr: float = 0.003) -> ArtifactRef:
    """Trains, is packaged, and answers as it did in training."""
    store = LocalFolder(str(folder / "store"))
    dataset = data(store)
    spec = PipelineSpec.model_validate(
        {
            "name": "other",
            "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y"},
            "model": {"kind": "import", **model},
            "train": {"epochs": 4, "global_batch_size": 16, "optimizer": {"kind": "adamw", "lr": lr}},
        }
    )
    order = TrainOrder(spec, dataset, store.uri, "r", "runs/r/train/artifact", code_dir=folder)

    result = run(order, World(), lambda event: None)
    rows = load_rows(store, dataset, "val")
    predictor = Predictor.load(store, result.artifact, code_dir=folder, engine="auto")
    predicted = predictor.predict(rows.columns)

    assert (predicted.labels() == rows.target).mean() == result.metrics["val_accuracy"]
    assert result.metrics["val_accuracy"] >= 0.9
    return result.artifact
