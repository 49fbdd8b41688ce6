"""The packaged model: weights, spec, transform state, signature, digests; JSON and safetensors, never pickle."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import FailFast, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from raypipe.errors import ArtifactError, ModelError, NonFiniteLossError
from raypipe.model import own_code, untrusted
from raypipe.model.build import build_model, outline
from raypipe.records import ArtifactRef, DatasetVersion, Record, Signature, TargetTransform
from raypipe.spec.code import OwnModule
from raypipe.spec.model import ImportModel, Model
from raypipe.storage import Store, layout
from raypipe.storage.publish import publish, read_manifest, read_published

WEIGHTS = layout.WEIGHTS
DESCRIPTION = "artifact.json"

MAX_FILES_TOLD = 3

_MODEL: TypeAdapter[Model] = TypeAdapter(Model)


class Artifact(Record):
    """artifact.json: all that is needed beside the weights to turn raw rows into predictions."""

    format: Literal[1] = 1
    model: dict[str, Any]
    """The network's part of the pipeline file; where its training started is not in it."""
    signature: Signature
    transforms: Annotated[tuple[dict[str, Any], ...], FailFast()]
    target_transform: TargetTransform = TargetTransform()
    """What predictions undo; `none` in artifacts that do not have it."""
    feature_shape: Annotated[tuple[int, ...], FailFast()]
    dataset: str
    code: dict[str, str] = {}
    """`kind: import`: SHA-256 of the module's file and those below its folder, by path from there; the code itself is
    not in the artifact."""
    versions: dict[str, str]


def write_artifact(
    store: Store,
    key: str,
    module: nn.Module,
    spec: Model,
    dataset: DatasetVersion,
    *,
    code_dir: Path | None = None,
    target_transform: TargetTransform | None = None,
) -> ArtifactRef:
    """Package a trained module under `key`.

    Args:
        target_transform: what was done to the target that the module learned; None: nothing.
    Raises:
        NonFiniteLossError: a weight is NaN or infinite; such a model is never written.
    """
    tensors = {name: _stored(name, tensor) for name, tensor in module.state_dict().items()}
    artifact = Artifact(
        model=spec.architecture(),
        signature=dataset.signature,
        transforms=dataset.transforms,
        target_transform=target_transform or TargetTransform(),
        feature_shape=dataset.feature_shape,
        dataset=dataset.version,
        code=own_code.source_digests(spec.path, code_dir) if isinstance(spec, ImportModel) else {},
        versions={"torch": torch.__version__, "python": platform.python_version()},
    )
    files = {DESCRIPTION: artifact.to_json(), WEIGHTS: safetensors.torch.save(tensors)}
    return ArtifactRef(key=key, digest=publish(store, key, files).digest)


def read_artifact(store: Store, ref: ArtifactRef, *, code_dir: Path | None = None) -> tuple[Artifact, nn.Module]:
    """The description and the module with its weights, every byte checked.

    Raises:
        DigestMismatch: bytes changed since they were written.
        ArtifactError: written by another format, forged, or the user's code is not here or changed since.
    """
    where = f"{store.uri}/{ref.key}"
    try:
        size = read_manifest(store, ref.key).size_of(DESCRIPTION)
        if size > untrusted.MAX_DESCRIPTION_BYTES:
            untrusted.refuse(f"{DESCRIPTION} has {size} bytes; at most {untrusted.MAX_DESCRIPTION_BYTES} are read")
        files = read_published(store, ref.key, (DESCRIPTION, WEIGHTS), digest=ref.digest)
        artifact, spec = _described(files[DESCRIPTION])
        shapes = untrusted.tensor_shapes(files[WEIGHTS])
        if not isinstance(spec, ImportModel):  # a network without memory: a layer may be as wide as was forged
            network = outline(spec, artifact.signature, artifact.feature_shape, artifact.transforms)
            untrusted.check_weights(shapes, network.state_dict())
    except ArtifactError as error:
        raise ArtifactError(f"{where} is not an artifact this raypipe reads: {error.message}", error.hint) from None
    own = _checked_code(artifact, spec, code_dir) if isinstance(spec, ImportModel) else None
    module = build_model(
        spec, artifact.signature, artifact.feature_shape, code_dir, own=own, transforms=artifact.transforms
    )
    try:
        untrusted.check_weights(shapes, module.state_dict())
        module.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
    except (RuntimeError, SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{where}: the weights do not fit the model: {str(error)[:300]}") from None
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error.message}", error.hint) from None
    return artifact, module.eval()


def _described(data: bytes) -> tuple[Artifact, Model]:
    """The description and its model, every field judged; nothing was allocated or run by it."""
    try:
        artifact = Artifact.model_validate_json(data)
        spec = _MODEL.validate_python(artifact.model)
    except ValidationError as error:
        untrusted.refuse(untrusted.first_problem(error))
    untrusted.check_signature(artifact.signature)
    untrusted.check_target(artifact.target_transform, artifact.signature)
    untrusted.check_transforms(artifact.transforms, artifact.signature, artifact.feature_shape)
    return artifact, spec


def _stored(name: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise ArtifactError(f"model state '{name}' is a {type(tensor).__name__}; only tensors can be packaged")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise NonFiniteLossError(
            f"weight '{name}' holds NaN or infinite values; the model is not written", "lower train.optimizer.lr"
        )
    return tensor.detach().cpu().contiguous().clone()  # tied weights share memory, which safetensors refuses


def _checked_code(artifact: Artifact, spec: ImportModel, code_dir: Path | None) -> OwnModule:
    """The caller's module, if it is the one of the training; nothing of it has run yet."""
    try:
        own = own_code.read_module(spec.path, code_dir)
    except ModelError as error:
        raise ArtifactError(error.message, error.hint) from None
    # Of what the module imports, a file that only this machine has was not imported by the training either.
    names = sorted({*artifact.code, *own.needed})
    other = [name for name in names if name not in artifact.code or own.digests.get(name) != artifact.code[name]]
    if other:
        more = f" and {len(other) - MAX_FILES_TOLD} more" if len(other) > MAX_FILES_TOLD else ""
        raise ArtifactError(
            f"model.path: {spec.path} is not the source this model was trained with: "
            f"{', '.join(other[:MAX_FILES_TOLD])}{more} changed or missing",
            "check out the whole folder of that training, or train again",
        )
    return own
