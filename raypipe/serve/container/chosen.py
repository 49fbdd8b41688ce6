"""Which version a container serves: the one that is named, or the only one in the store that its platform brought.

A platform's folder is a store that `raypipe export` made, or has one somewhere below: SageMaker unpacks an archive,
Azure ML puts a folder of the model's own name in between.
"""

from __future__ import annotations

import os
from pathlib import Path

from raypipe.errors import RegistryError, StoreAccessError
from raypipe.records import ModelVersion
from raypipe.registry.versions import list_models, resolve, version_numbers
from raypipe.serve.container.settings import MODEL_FOLDER
from raypipe.storage import Store, layout, open_store

MAX_DEPTH = 3
"""Folders between the one that the platform names and the store."""

MAKE_ONE = "raypipe export MODEL@VERSION --out FOLDER makes what a container serves"


def open_model_store(uri: str) -> Store:
    """The store at `uri`, or the only one in a folder below it.

    Raises:
        RegistryError: there is no store, or more than one.
        StoreAccessError: see `open_store`; or it is Google's.
    """
    folder = Path(uri.removeprefix("file://"))
    if uri.startswith("gs://"):
        raise StoreAccessError(
            f"store {uri}: this image does not read Google Cloud Storage",
            f"build the model into the image (COPY it to {MODEL_FOLDER}) and upload it without --artifact-uri",
        )
    if "://" in uri.removeprefix("file://"):
        return open_store(uri)
    try:
        below = _stores_in(folder)
    except FileNotFoundError:
        raise RegistryError(
            f"there is no folder {folder} in this container", f"mount the model there; {MAKE_ONE}"
        ) from None
    except OSError as error:
        raise RegistryError(
            f"{folder} cannot be read by user {os.getuid()}: {error.strerror}",
            "let others read it (chmod -R a+rX), or run the container as the user whose folder it is (--user)",
        ) from None
    if len(below) != 1:
        names = ", ".join(sorted(str(path.relative_to(folder)) for path in below)[:5])
        what = f"holds {len(below)} stores ({names}); it must hold one" if below else "holds no registered model"
        raise RegistryError(f"{folder} {what}", f"name it with RAYPIPE_STORE; {MAKE_ONE}")
    return open_store(str(below[0]))


def _stores_in(folder: Path) -> list[Path]:
    """The folder itself if it is a store, else all stores not too far below it. Raises OSError."""
    level = [folder]
    for _ in range(MAX_DEPTH + 1):
        inside = {path: list(path.iterdir()) for path in level}
        if stores := [path for path, entries in inside.items() if path / layout.models() in entries]:
            return stores
        level = [entry for entries in inside.values() for entry in entries if entry.is_dir()]
    return []


def chosen_version(store: Store, reference: str | None) -> ModelVersion:
    """The version `reference` means; without one the only model's only version, or its champion.

    Raises:
        RegistryError: it is not there, or cannot be told; the message says what there is.
    """
    if reference:
        return resolve(store, reference)
    models = list_models(store)
    if len(models) != 1:
        found = f"holds {len(models)} models ({', '.join(models[:10])})" if models else "holds no registered model"
        raise RegistryError(f"{store.uri} {found}", "name one with RAYPIPE_MODEL" if models else MAKE_ONE)
    numbers = version_numbers(store, models[0])
    return resolve(store, f"{models[0]}@{numbers[0]}" if len(numbers) == 1 else models[0])
