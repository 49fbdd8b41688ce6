"""Finding models, versions and what a name like `digits@champion` means."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable

from raypipe.errors import DocumentError, ObjectMissing, RegistryError, SpecError, StoreError
from raypipe.records import ArtifactRef, ModelVersion, Record
from raypipe.registry.aliases import Alias, Aliases, Listed
from raypipe.storage import Store, layout
from raypipe.storage.documents import is_sealed, parse, read_document
from raypipe.storage.publish import read_published

DEFAULT_ALIAS = "champion"

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
"""How a version number is written, and not `01` or digits of other scripts: one version has one name. A longer one was
never given out, and Python refuses to read thousands of digits."""


class TakenNumber(Record):
    """Who took a version number: written first, never changed, and left when the version is deleted."""

    model: str
    version: int
    run_id: str
    artifact: str
    """Digest."""


def list_models(store: Store) -> list[str]:
    """Names of all models that have a version, sorted; folders that no model can be named after are none."""
    prefix = f"{layout.models()}/"
    parts = [info.key.removeprefix(prefix).split("/") for info in store.list(layout.models())]
    names = {part[0] for part in parts if part[1:2] == ["versions"] and part[-1] == "version.json"}
    return sorted(name for name in names if _is_name(name))


def version_numbers(store: Store, model: str) -> list[int]:
    """Numbers of all versions of a model, ascending; empty when there are none."""
    prefix = f"{layout.versions(model)}/"
    names = [info.key.removeprefix(prefix).split("/") for info in store.list(layout.versions(model))]
    return sorted(int(name[0]) for name in names if _NUMBER.fullmatch(name[0]) and name[1:] == ["version.json"])


def taken_numbers(store: Store, model: str) -> list[int]:
    """Numbers that were given out, ascending, whether or not their versions are still there."""
    prefix = f"{layout.numbers(model)}/"
    names = [info.key.removeprefix(prefix).removesuffix(".json") for info in store.list(layout.numbers(model))]
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def list_versions(store: Store, model: str) -> list[Listed[int, ModelVersion]]:
    """All versions of a model, ascending, damaged ones with the reason; empty when there are none."""
    listed: list[Listed[int, ModelVersion]] = []
    for number in version_numbers(store, model):
        try:
            listed.append(Listed(number, get(store, model, number)))
        except RegistryError as error:
            listed.append(Listed(number, None, error.message))
    return listed


def get(store: Store, model: str, number: int) -> ModelVersion:
    """One version.

    Raises:
        RegistryError: there is no such model or version, or its record is damaged or not the one that was registered.
    """
    key = layout.version(model, number)
    try:
        data = store.read(key)
    except ObjectMissing:
        raise _unknown(store, model, f"version {number}") from None
    try:
        version = parse(store, key, data, ModelVersion)
    except DocumentError as error:
        raise RegistryError(error.message, error.hint) from None
    _check_identity(store, version, model, number, is_sealed(data))
    return version


def taken_by(store: Store, model: str, number: int) -> TakenNumber | None:
    """Who took a number; None when nobody did, or an older raypipe gave it out.

    Raises:
        RegistryError: its record is damaged.
    """
    try:
        return read_document(store, layout.number(model, number), TakenNumber)
    except ObjectMissing:
        return None
    except DocumentError as error:
        raise RegistryError(error.message, error.hint) from None


def check_artifact(store: Store, version: ModelVersion) -> None:
    """Read every byte of a version's artifact.

    Raises:
        RegistryError: bytes are missing or changed: the version can serve nobody.
    """
    try:
        read_published(store, version.artifact.key, digest=version.artifact.digest)
    except StoreError as error:
        if error.transient:
            raise
        raise RegistryError(
            f"{version.model}@{version.version} cannot be served: {error.message}", error.hint
        ) from None


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
    if _NUMBER.fullmatch(wanted):
        return get(store, model, int(wanted))
    if wanted.isdecimal():
        raise RegistryError(
            f"'{ref}' names no version: numbers are written 1, 2, 3, ...", f"raypipe versions {layout.name(model)}"
        )
    alias = Aliases(store, model).get(wanted or DEFAULT_ALIAS)
    if alias is None:
        raise _unknown(store, model, f"alias '{wanted or DEFAULT_ALIAS}'")
    return pointed_at(store, alias)


def promote(
    store: Store, ref: str, alias: str = DEFAULT_ALIAS, *, clock: Callable[[], float] = time.time
) -> tuple[Alias | None, Alias]:
    """Point an alias at the version `ref` means, once every byte of its artifact was checked.

    Returns:
        The alias before (None: it is new) and after. Already there: the same twice, and nothing is written.
    Raises:
        RegistryError: there is no such model or version, or it is damaged; nothing was changed.
        AliasMoved: somebody else moved the alias at the same time; nothing was changed.
    """
    version = resolve(store, ref)
    check_artifact(store, version)
    aliases = Aliases(store, version.model, clock)
    before = aliases.get(alias)
    if before is not None and before.version == version.version:
        return before, before
    return before, aliases.move(alias, to=version.version, expect=before)


def rollback(
    store: Store, model: str, alias: str = DEFAULT_ALIAS, *, clock: Callable[[], float] = time.time
) -> tuple[Alias, Alias]:
    """Point an alias back at the version it pointed at before this one, if that is still there and whole.

    Returns:
        The alias before and after.
    Raises:
        RegistryError: there is no such alias, nothing to go back to, or that version is gone or damaged; nothing was
            changed.
        AliasMoved: somebody else moved the alias at the same time; nothing was changed.
    """
    aliases = Aliases(store, model, clock)
    now, target = aliases.before(alias)
    try:
        check_artifact(store, get(store, model, target))
    except RegistryError as error:
        whole = [number for number in reversed(now.previous[:-1]) if number in version_numbers(store, model)]
        other = f"{model}@{whole[0]}" if whole else f"{model}@VERSION"
        raise RegistryError(
            f"{model}@{alias} pointed at version {target} before, and cannot go back to it: {error.message}; "
            f"nothing was changed, it points at version {now.version}",
            f"raypipe promote {other} --alias {alias}; raypipe versions {model} shows what there is",
        ) from None
    return now, aliases.rollback(now)


def _check_identity(store: Store, version: ModelVersion, model: str, number: int, sealed: bool) -> None:
    """Refuse a record that is not the one this number was given to, although it may be whole."""
    where = f"{store.uri}/{layout.version(model, number)} is damaged"
    if (version.model, version.version) != (model, number):
        raise RegistryError(f"{where}: it describes {version.model}@{version.version}")
    taken = taken_by(store, model, number)
    if taken is None and not sealed:
        return  # both began at the same time: an older raypipe registered it
    digest = version.artifact.digest
    if not _is_name(digest[:32]) or version.artifact != ArtifactRef(
        key=layout.model_artifact(model, digest), digest=digest
    ):
        raise RegistryError(f"{where}: its artifact is {version.artifact.key}, not that of its digest {digest[:12]}")
    if (version.evaluation.artifact.digest, version.evaluation.dataset) != (digest, version.dataset):
        raise RegistryError(f"{where}: its evaluation is that of another model or dataset")
    if taken is None:
        raise RegistryError(
            f"{where}: nobody took number {number} ({layout.number(model, number)} is missing)",
            "restore that object from a backup, or register the model again",
        )
    given = TakenNumber(model=model, version=number, run_id=version.run_id, artifact=digest)
    if not sealed or taken != given:
        raise RegistryError(
            f"{where}: it is not the version that was registered: number {number} was given to artifact "
            f"{taken.artifact[:12]} of run {taken.run_id}; the record says artifact {digest[:12]} of run "
            f"{version.run_id}{'' if sealed else ', without a digest'}",
            "restore the object from a backup or an older bucket version, and find out who wrote it",
        )


def _is_name(text: str) -> bool:
    try:
        layout.name(text)
    except SpecError:
        return False
    return True


def pointed_at(store: Store, alias: Alias) -> ModelVersion:
    """The version an alias points at. Raises RegistryError, in terms of the alias, where it is gone or damaged."""
    try:
        return get(store, alias.model, alias.version)
    except RegistryError as error:
        raise RegistryError(
            f"{alias.model}@{alias.name} points at version {alias.version}: {error.message}",
            f"raypipe rollback {alias.model} --alias {alias.name}, or raypipe promote {alias.model}@VERSION",
        ) from None


def _unknown(store: Store, model: str, what: str) -> RegistryError:
    numbers = version_numbers(store, model)
    if numbers:
        aliases = sorted(Aliases(store, model).names())
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
