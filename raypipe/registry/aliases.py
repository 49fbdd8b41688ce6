"""Movable names for model versions, moved by compare-and-swap: `digits@champion`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from uuid import uuid4

from pydantic import ValidationError

from raypipe.errors import AliasMoved, ObjectChanged, ObjectExists, ObjectMissing, RegistryError, StoreError
from raypipe.records import Record
from raypipe.storage import Store, layout

MAX_HISTORY = 50
"""Moves an alias remembers, and versions a chain of rollbacks can walk back."""

MAX_TRIES = 5
"""Writes tried when storage does not say whether the last one landed."""


class AliasMove(Record):
    """One move of an alias."""

    version: int
    nonce: str
    """Names this move; no two moves share it."""
    moved_at: str
    """UTC, ISO 8601."""


class Alias(Record):
    """Where an alias points, and where it pointed before."""

    model: str
    name: str
    version: int
    nonce: str
    """Names the move that led here; what `expect` is compared by."""
    moved_at: str
    """UTC, ISO 8601."""
    history: tuple[AliasMove, ...]
    """The last moves, oldest first; the last one led here."""
    previous: tuple[int, ...] = ()
    """Versions a rollback goes to, the next one last; a rollback takes its version off, so two go back two."""


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

    def all(self) -> dict[str, Alias]:
        """Every alias of the model, by name."""
        keys = [info.key for info in self._store.list(layout.aliases(self._model))]
        names = [key.rpartition("/")[2].removesuffix(".json") for key in keys if key.endswith(".json")]
        found = {name: self.get(name) for name in names}
        return {name: alias for name, alias in found.items() if alias is not None}

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

    def rollback(self, alias: str) -> Alias:
        """Point `alias` back at the version it pointed at before this one; again: one further back.

        Raises:
            AliasMoved: somebody else moved it at the same time; nothing was changed.
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
        return self._swap(alias, now.previous[-1], now, now.previous[:-1])

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
            return Alias.model_validate_json(data), etag
        except ValidationError as error:
            raise RegistryError(
                f"{self._store.uri}/{key} is damaged: not a readable alias ({error.error_count()} problems)",
                "restore the object from a backup or an older bucket version",
            ) from None

    def _write(self, alias: str, target: Alias, etag: str) -> None:
        key = layout.alias(self._model, alias)
        if etag:
            self._store.write_if_unchanged(key, target.to_json(), etag)
        else:
            self._store.write_if_absent(key, target.to_json())

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds")


def _holds(alias: Alias | None, move: AliasMove) -> bool:
    return alias is not None and any(past.nonce == move.nonce for past in alias.history)
