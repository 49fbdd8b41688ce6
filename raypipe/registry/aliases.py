"""Movable names for model versions, moved by compare-and-swap: `digits@champion`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Generic, TypeVar
from uuid import uuid4

from pydantic import Field

from raypipe.errors import (
    AliasMoved,
    DocumentError,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    RegistryError,
    SpecError,
    StoreError,
)
from raypipe.records import Record
from raypipe.storage import Store, layout
from raypipe.storage.documents import parse, seal

MAX_HISTORY = 50
"""Moves an alias remembers, and versions a chain of rollbacks can walk back."""

MAX_TRIES = 5
"""Writes tried when storage does not say whether the last one landed."""


Number = Annotated[int, Field(ge=1, lt=10**18)]

Name = TypeVar("Name", str, int)
Kept = TypeVar("Kept", bound=Record)


class AliasMove(Record):
    """One move of an alias."""

    version: Number
    nonce: str
    """Names this move; no two moves share it."""
    moved_at: str
    """UTC, ISO 8601."""


class Alias(Record):
    """Where an alias points, and where it pointed before."""

    model: str
    name: str
    version: Number
    nonce: str
    """Names the move that led here; what `expect` is compared by."""
    moved_at: str
    """UTC, ISO 8601."""
    history: tuple[AliasMove, ...]
    """The last moves, oldest first; the last one led here."""
    previous: tuple[Number, ...] = ()
    """Versions a rollback goes to, the next one last; a rollback takes its version off, so two go back two."""


@dataclass(frozen=True)
class Listed(Generic[Name, Kept]):
    """One alias or one version in a list.

    Attributes:
        name: of an alias; of a version its number.
        record: None where it cannot be read.
        problem: why it cannot be read.
    """

    name: Name
    record: Kept | None
    problem: str = ""


class Aliases:
    """The aliases of one model.

    Args:
        model: its name in the registry; need not have versions yet.
        clock: seconds since the epoch.
    """

    def __init__(self, store: Store, model: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._model = model
        self._clock = clock

    def get(self, alias: str) -> Alias | None:
        """Where `alias` points; None when it does not exist."""
        return self._read(alias)[0]

    def names(self) -> list[str]:
        """Names of the model's aliases, sorted; damaged ones too."""
        keys = [info.key for info in self._store.list(layout.aliases(self._model))]
        return [key.rpartition("/")[2].removesuffix(".json") for key in keys if key.endswith(".json")]

    def listed(self) -> list[Listed[str, Alias]]:
        """Every alias of the model in order of its name, damaged ones with the reason."""
        listed: list[Listed[str, Alias]] = []
        for name in self.names():
            try:
                alias = self.get(name)
            except (RegistryError, SpecError) as error:  # SpecError: a file whose name cannot be an alias
                listed.append(Listed(name, None, error.message))
                continue
            if alias is not None:  # somebody may have removed it meanwhile
                listed.append(Listed(name, alias))
        return listed

    def move(self, alias: str, to: int, *, expect: Alias | None) -> Alias:
        """Point `alias` at version `to`, if nobody moved it since `expect` was read.

        The caller has seen that the version exists: see `register` and `promote`.

        Args:
            expect: what `get` answered when the decision to move was taken; None: the alias did not exist.
        Raises:
            AliasMoved: it points elsewhere by now; nothing was changed.
            SpecError: `alias` cannot name one.
        """
        previous = () if expect is None else expect.previous
        if expect is not None and expect.version != to:
            previous = (*previous, expect.version)
        return self._swap(alias, to, expect, previous)

    def before(self, alias: str) -> tuple[Alias, int]:
        """Where `alias` points, and the version that a rollback would go to.

        Raises:
            RegistryError: there is no such alias, or nothing to go back to.
        """
        now = self.get(alias)
        if now is None:
            raise RegistryError(
                f"{self._model} has no alias '{alias}'", f"raypipe promote {self._model}@VERSION --alias {alias}"
            )
        if not now.previous:
            raise RegistryError(
                f"{self._model}@{alias} points at version {now.version} and at none before it: nothing to roll back to",
                f"raypipe promote {self._model}@VERSION --alias {alias}",
            )
        return now, now.previous[-1]

    def rollback(self, expect: Alias) -> Alias:
        """Point an alias back at the version it pointed at before this one; again: one further back.

        The caller has seen that the version exists: see `rollback` in versions.py.

        Args:
            expect: what `before` answered.
        Raises:
            AliasMoved: somebody else moved it at the same time; nothing was changed.
        """
        return self._swap(expect.name, expect.previous[-1], expect, expect.previous[:-1])

    def _swap(self, alias: str, to: int, expect: Alias | None, previous: tuple[int, ...]) -> Alias:
        move = AliasMove(version=to, nonce=uuid4().hex, moved_at=self._now())
        history = () if expect is None else expect.history
        target = Alias(
            model=self._model,
            name=alias,
            history=(*history, move)[-MAX_HISTORY:],
            previous=previous[-MAX_HISTORY:],
            **move.model_dump(),
        )
        for _ in range(MAX_TRIES):
            found, etag = self._read(alias)
            if _holds(found, move):
                return target  # an earlier try landed although its answer was lost
            self._check(alias, found, expect)
            try:
                self._write(alias, target, etag)
            except (ObjectExists, ObjectChanged):
                continue  # by our own lost write, or by somebody else: reading tells
            except StoreError as error:
                if not error.transient:
                    raise
                continue
            return target
        if _holds(self.get(alias), move):
            return target
        raise StoreError(
            f"{self._store.uri}: storage did not say in {MAX_TRIES} tries whether {self._model}@{alias} moved",
            "run the same command again",
        )

    def _check(self, alias: str, found: Alias | None, expect: Alias | None) -> None:
        if (found and found.nonce) == (expect and expect.nonce):
            return
        was = "did not exist" if expect is None else f"pointed at version {expect.version}"
        now = "is gone" if found is None else f"now points at version {found.version} (moved {found.moved_at})"
        raise AliasMoved(
            f"{self._model}@{alias} {was} when the move was decided; it {now}; nothing was changed",
            f"look at it again: raypipe versions {self._model}",
        )

    def _read(self, alias: str) -> tuple[Alias | None, str]:
        key = layout.alias(self._model, alias)
        try:
            data, etag = self._store.read_with_etag(key)
        except ObjectMissing:
            return None, ""
        try:
            found = parse(self._store, key, data, Alias)
        except DocumentError as error:
            raise RegistryError(error.message, error.hint) from None
        if (found.model, found.name) != (self._model, alias):
            raise RegistryError(
                f"{self._store.uri}/{key} is damaged: it is the alias {found.model}@{found.name}",
                f"remove the object, then: raypipe promote {self._model}@VERSION --alias {alias}",
            )
        return found, etag

    def _write(self, alias: str, target: Alias, etag: str) -> None:
        key = layout.alias(self._model, alias)
        data = seal(key, target)
        if etag:
            self._store.write_if_unchanged(key, data, etag)
        else:
            self._store.write_if_absent(key, data)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds")


def _holds(alias: Alias | None, move: AliasMove) -> bool:
    return alias is not None and any(past.nonce == move.nonce for past in alias.history)
