"""Finding models, versions and what a name like `digits@champion` means."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable

from pydantic import ValidationError

from raypipe.errors import ObjectMissing, RegistryError
from raypipe.records import ModelVersion
from raypipe.registry.aliases import Alias, Aliases
from raypipe.storage import Store, layout

DEFAULT_ALIAS = "champion"


def list_models(store: Store) -> list[str]:
    """Names of all models that have a version, sorted."""
    prefix = f"{layout.models()}/"
    parts = [info.key.removeprefix(prefix).split("/") for info in store.list(layout.models())]
    return sorted({part[0] for part in parts if part[1:2] == ["versions"] and part[-1] == "version.json"})


def version_numbers(store: Store, model: str) -> list[int]:
    """Numbers of all versions of a model, ascending; empty when there are none."""
    prefix = f"{layout.versions(model)}/"
    names = [info.key.removeprefix(prefix).split("/") for info in store.list(layout.versions(model))]
    return sorted(int(name[0]) for name in names if name[0].isdigit() and name[1:] == ["version.json"])


def list_versions(store: Store, model: str) -> list[ModelVersion]:
    """All versions of a model, ascending; empty when there are none."""
    return [get(store, model, number) for number in version_numbers(store, model)]


def get(store: Store, model: str, number: int) -> ModelVersion:
    """One version.

    Raises:
        RegistryError: there is no such model or version, or its record is damaged.
    """
    key = layout.version(model, number)
    try:
        data = store.read(key)
    except ObjectMissing:
        raise _unknown(store, model, f"version {number}") from None
    try:
        found = ModelVersion.model_validate_json(data)
    except ValidationError as error:
        raise RegistryError(
            f"{store.uri}/{key} is damaged: not a readable model version ({error.error_count()} problems)",
            "restore the object from a backup or an older bucket version",
        ) from None
    if (found.model, found.version) != (model, number):
        raise RegistryError(f"{store.uri}/{key} is damaged: it describes {found.model}@{found.version}")
    return found


def resolve(store: Store, ref: str) -> ModelVersion:
    """The version a name means now.

    Args:
        ref: `digits@3` (a version), `digits@champion` (an alias), or `digits` (its champion).
    Raises:
        RegistryError: there is no such model, version or alias; the message says what there is.
        SpecError: a part of the name cannot be a name.
    """
    model, at, wanted = ref.partition("@")
    if at and not wanted:
        raise RegistryError(f"'{ref}' ends in '@'; write MODEL, MODEL@ALIAS or MODEL@VERSION")
    if wanted.isdecimal():
        return get(store, model, int(wanted))
    alias = Aliases(store, model).get(wanted or DEFAULT_ALIAS)
    if alias is None:
        raise _unknown(store, model, f"alias '{wanted or DEFAULT_ALIAS}'")
    return get(store, model, alias.version)


def promote(
    store: Store, ref: str, alias: str = DEFAULT_ALIAS, *, clock: Callable[[], float] = time.time
) -> tuple[Alias | None, Alias]:
    """Point an alias at the version `ref` means.

    Returns:
        The alias before (None: it is new) and after. Already there: the same twice, and nothing is written.
    Raises:
        RegistryError: there is no such model or version.
        AliasMoved: somebody else moved the alias at the same time; nothing was changed.
    """
    version = resolve(store, ref)
    aliases = Aliases(store, version.model, clock)
    before = aliases.get(alias)
    if before is not None and before.version == version.version:
        return before, before
    return before, aliases.move(alias, to=version.version, expect=before)


def _unknown(store: Store, model: str, what: str) -> RegistryError:
    numbers = version_numbers(store, model)
    if numbers:
        aliases = sorted(Aliases(store, model).all())
        there = f"versions {_ranges(numbers)}" + (f"; aliases {', '.join(aliases)}" if aliases else "; no aliases")
        return RegistryError(f"{model} has no {what} in {store.uri}; it has {there}", f"raypipe versions {model}")
    models = list_models(store)
    if not models:
        return RegistryError(
            f"no model '{model}' in {store.uri}: no model is registered there",
            "register one: raypipe run pipeline.yaml, or name another store: --store",
        )
    close = difflib.get_close_matches(model, models, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "raypipe models, or name another store: --store"
    shown = ", ".join(models[:10]) + (f" and {len(models) - 10} more" if len(models) > 10 else "")
    return RegistryError(f"no model '{model}' in {store.uri}; there are: {shown}", hint)


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 -> '1-3, 7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
