"""A forged artifact is refused with its field named, before anything is allocated by what it says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import nn

from raypipe.errors import ArtifactError
from raypipe.model import untrusted
from raypipe.model.artifact import DESCRIPTION, WEIGHTS, read_artifact, write_artifact
from raypipe.model.build import build_model
from raypipe.model.predictor import Predictor
from raypipe.records import ArtifactRef, Column, DatasetVersion, Signature
from raypipe.spec.model import CnnModel, LinearModel, MlpModel, Model
from raypipe.spec.transforms import Transform
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import publish
from raypipe.testing.contracts import TransformContract
from raypipe.testing.contracts.transforms import TRANSFORM_COLUMNS
from raypipe.testing.fakes import fit_columns

pytestmark = pytest.mark.thorough

TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)

Change = Callable[[dict[str, Any]], Any]


def forge(
    store: LocalFolder, dataset: DatasetVersion, spec: Model, change: Change, weights: bytes = b""
) -> ArtifactRef:
    """A good artifact, changed, under digests that fit it."""
    module = build_model(spec, dataset.signature, dataset.feature_shape, None)
    write_artifact(store, "a", module, spec, dataset)
    described = json.loads(store.read(f"a/{DESCRIPTION}"))
    change(described)
    files = {DESCRIPTION: json.dumps(described).encode(), WEIGHTS: weights or store.read(f"a/{WEIGHTS}")}
    return ArtifactRef(key="a", digest=publish(store, "a", files).digest)


def put(*path: Any, value: Any) -> Change:
    """A change that sets one field."""

    def change(described: dict[str, Any]) -> None:
        at: Any = described
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    def change(described: dict[str, Any]) -> None:
        at: Any = described
        for part in path[:-1]:
            at = at[part]
        del at[path[-1]]

    return change


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


TABLE: dict[str, tuple[Change, str]] = {
    "code of Python's": (put("model", value={"kind": "import", "path": "builtins:exec"}), "standard library"),
    "a model that is none": (put("model", value={"kind": "pickle"}), "'pickle'|pickle|discriminator|tag"),
    "unknown transform": (put("transforms", 0, "kind", value="exec"), r"transforms\.0: "),
    "transform without columns": (drop("transforms", 0, "columns"), r"transforms\.0: `columns`"),
    "columns that are a list": (put("transforms", 0, "columns", value=[1]), r"transforms\.0: `columns`"),
    "fitted on nothing": (put("transforms", 0, "columns", value={"age": {}}), r"transforms\.0: KeyError: 'mean'"),
    "fitted on text": (put("transforms", 0, "columns", "age", "mean", value="a"), "cannot be applied"),
    "fitted NaN": (put("transforms", 0, "columns", "age", "mean", value=[float("nan")]), r"transforms\.0: ValueError"),
    "column that is not there": (put("transforms", 0, "columns", value={"x": {}}), "there is no input 'x'"),
    "reads where none are": (put("transforms", 0, "reads", value=["age"]), "standardize has no `reads`"),
    "huge fitted width": (
        put("transforms", 1, value={"kind": "hashing", "num_buckets": 2**40, "columns": {"color": {}}}),
        r"transforms\.1: hashing\.num_buckets: Input should be less than",
    ),
    "transforms that are numbers": (put("transforms", value=[1] * 1000), r"transforms\.0: Input should be an object"),
    "feature shape of 2^31": (put("feature_shape", value=[2**31]), "feature_shape has shape"),
    "negative feature shape": (put("feature_shape", value=[-4]), "feature_shape has shape"),
    "feature shape of another size": (put("feature_shape", value=[5]), r"found \[5\], but the transforms give \[4\]"),
    "feature shape that overflows": (put("feature_shape", value=[2**40] * 9), "feature_shape has shape"),
    "negative input shape": (put("signature", "inputs", 0, "shape", value=[-1]), "column 'age' has shape"),
    "huge input shape": (put("signature", "inputs", 0, "shape", value=[2**62]), "column 'age' has shape"),
    "unknown dtype": (put("signature", "inputs", 0, "dtype", value="object"), "unknown dtype 'object'"),
    "no inputs": (put("signature", "inputs", value=[]), "signature.inputs: 0 columns"),
    "classes of a regression": (put("signature", "classes", value=[0, 1]), "signature.classes: 2 for task regression"),
    "deep JSON": (put("model", "args", value=nested(900)), "recursion limit"),
    "unknown field": (put("run_me", value="now"), "run_me: Extra inputs"),
}


@pytest.mark.parametrize("case", TABLE)
def test_forged_description_of_a_table_model_is_refused(case: str, store: LocalFolder, table: DatasetVersion) -> None:
    change, message = TABLE[case]
    ref = forge(store, table, LinearModel(kind="linear"), change)
    with pytest.raises(ArtifactError, match=message) as caught:
        Predictor.load(store, ref)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (
            MlpModel(kind="mlp", hidden=[8]),
            put("model", "hidden", value=[65536] * 64),
            r"is \[8, 36\], not \[65536, 36\].* and 127 more",
        ),
        (MlpModel(kind="mlp", hidden=[8]), put("model", "hidden", value=[9]), r"is \[8, 36\], not \[9, 36\]"),
        (CnnModel(kind="cnn", channels=[4]), put("model", "channels", value=[4096]), r"not \[4096, 1, 3, 3\]"),
        (CnnModel(kind="cnn", channels=[4]), put("model", "channels", value=[4] * 8), "needs at least 256x256"),
        (LinearModel(kind="linear"), put("signature", "classes", value=list(range(10**6))), r"not \[1000000, 36\]"),
        (LinearModel(kind="linear"), put("signature", "classes", value=[]), "signature.classes"),
        (LinearModel(kind="linear"), put("target_transform", "kind", value="log"), "log of a classification"),
        (LinearModel(kind="linear"), put("signature", "classes", value=[1, 1, 2]), "signature.classes"),
    ],
)
def test_forged_sizes_of_a_network_are_refused_by_its_outline(
    spec: Model, change: Change, message: str, store: LocalFolder, images: DatasetVersion, monkeypatch: Any
) -> None:
    ref = forge(store, images, spec, change)
    monkeypatch.setattr("raypipe.model.artifact.build_model", _not_reached)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(store, ref)


def _header(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (b"", "the weights' header says|do not fit"),
        (b"\xff" * 8, "the weights' header says it has 18446744073709551615 bytes"),
        (_header(b"[" * 10**5), "cannot be read: RecursionError"),
        (_header(b"[]"), "cannot be read"),
        (_header(b'{"1.weight": 3}'), "cannot be read: TypeError"),
        (_header(b'{"1.weight": {"shape": ["x"]}}'), "cannot be read: ValueError"),
        (_header(b'{"1.weight": {"shape": [1e400]}}'), "cannot be read: OverflowError"),
        (_header(b'{"1.weight":{"shape":[3,36]},"1.bias":{"shape":[3]}}'), "do not fit the model: "),
    ],
)
def test_forged_weights_are_refused_by_their_header(
    weights: bytes, message: str, store: LocalFolder, images: DatasetVersion
) -> None:
    ref = forge(store, images, LinearModel(kind="linear"), lambda described: None, weights or b"\0" * 4)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(store, ref)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (10**6, "the weights' header says it has"),
        (10**4, r"1\.weight is absent, not \[3, 36\]; 1\.bias is absent, not \[3\]; 0 is \[0\].* and 9999 more"),
    ],
)
def test_forged_weights_of_many_tensors_are_refused_by_their_header(
    count: int, message: str, store: LocalFolder, images: DatasetVersion, monkeypatch: Any
) -> None:
    tensors = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(count))
    ref = forge(store, images, LinearModel(kind="linear"), lambda described: None, _header(b"{%s}" % tensors))
    monkeypatch.setattr(safetensors.torch, "load", _not_reached)  # it takes minutes for a million tensors
    with pytest.raises(ArtifactError, match=message):
        read_artifact(store, ref)


def test_files_of_an_artifact_that_are_not_its_own_are_not_read(store: LocalFolder, images: DatasetVersion) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    write_artifact(store, "a", module, LinearModel(kind="linear"), images)
    files = {name: store.read(f"a/{name}") for name in (DESCRIPTION, WEIGHTS)}
    ref = ArtifactRef(key="a", digest=publish(store, "a", {**files, "more.bin": b"1"}).digest)
    store.delete("a/more.bin")
    _, loaded = read_artifact(store, ref)
    assert torch.equal(loaded(torch.ones(1, 6, 6)), module(torch.ones(1, 6, 6)))


@pytest.mark.parametrize("name", TransformContract.usable_examples())
def test_every_field_of_every_fitted_transform_may_be_forged(name: str) -> None:
    refused = 0
    for fields in TransformContract.examples[name]:
        columns = {n: TRANSFORM_COLUMNS[n][1] for n in fields["columns"]}
        inputs = tuple(Column(name=n, **TRANSFORM_COLUMNS[n][0]) for n in fields["columns"])
        fitted = fit_columns([_spec(name, fields)], inputs, [columns])
        good = json.loads(json.dumps(fitted.state()))
        signature = Signature(inputs=inputs, task="regression", target="y")
        shape = fitted.feature_shape(inputs)
        untrusted.check_transforms(good, signature, shape)
        for path in _paths(good[0]):
            for value in (None, -1, 2**70, 1e308, "x", "", [], {}, [[1]], True):
                state = copy.deepcopy(good)
                put(*path, value=value)(state[0])
                try:
                    untrusted.check_transforms(state, signature, shape)
                except ArtifactError:  # nothing else may come, and some values are as good as what was fitted
                    refused += 1
    assert refused


def _spec(name: str, fields: dict[str, Any]) -> Any:
    return TRANSFORM.validate_python({"kind": name, **fields})


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*before, key)
        yield from _paths(child, (*before, key))


def _not_reached(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("reached")


def test_shapes_of_a_million_sizes_and_thousands_of_digits_are_told_in_short():
    with pytest.raises(ArtifactError) as caught:
        untrusted.check_weights({"w": (1,) * 10**6}, {"w": torch.zeros(2)})
    assert caught.value.message.endswith("w is [1, 1, 1, 1, 1, 1, 1, 1, ...], not [2]")
    with pytest.raises(ArtifactError, match=r"has shape \[more than 10\^12\]"):
        untrusted.check_shape("x", [10**5000])
