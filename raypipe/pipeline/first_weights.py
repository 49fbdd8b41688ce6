"""What `model.init_from` names: a registered model's weights, or a file's, which come into the store with a run.

Workers may be anywhere, so they read weights from the store alone, by digest. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from raypipe.errors import SpecError
from raypipe.records import ArtifactRef, digest_of
from raypipe.registry.versions import resolve
from raypipe.spec.model import SAFETENSORS, Model
from raypipe.storage import Store, layout
from raypipe.storage.publish import publish, sha256


def digest_of_first_weights(model: Model, store: Store, code_dir: Path) -> str | None:
    """Digest of what a training starts from; None where the seed decides.

    Raises:
        RegistryError, SpecError: there is no such version or file.
    """
    if model.init_from is None:
        return None
    if not model.init_from.endswith(SAFETENSORS):
        return resolve(store, model.init_from).artifact.digest
    return digest_of({layout.WEIGHTS: sha256(_read(model.init_from, code_dir))})


def placed(model: Model, store: Store, code_dir: Path | None) -> ArtifactRef | None:
    """Where workers find what a training starts from; a file's content is put into the store.

    Raises:
        RegistryError, SpecError: there is no such version or file.
    """
    if model.init_from is None:
        return None
    if not model.init_from.endswith(SAFETENSORS):
        return resolve(store, model.init_from).artifact
    data = _read(model.init_from, code_dir or Path.cwd())
    key = layout.first_weights(sha256(data))
    return ArtifactRef(key=key, digest=publish(store, key, {layout.WEIGHTS: data}).digest)


def _read(name: str, code_dir: Path) -> bytes:
    path = code_dir / Path(name).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"model.init_from: {name} cannot be read: {error.strerror or type(error).__name__}",
            "paths start from the pipeline file's folder",
        ) from None
