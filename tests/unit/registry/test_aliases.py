"""Aliases move by compare-and-swap, remember where they were, and lose nothing to a lost answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from raypipe.errors import AliasMoved, RegistryError, SpecError, StoreError
from raypipe.registry.aliases import MAX_HISTORY, MAX_TRIES, Aliases
from raypipe.storage import Store, layout
from raypipe.testing.fakes import FakeClock, MemoryStore
from raypipe.testing.faults import LosingStore


@pytest.fixture
def memory_store() -> MemoryStore:
    return MemoryStore()


def moved(store: Store, *versions: int, alias: str = "champion") -> Aliases:
    aliases = Aliases(store, model="flowers")
    for version in versions:
        aliases.move(alias, to=version, expect=aliases.get(alias))
    return aliases


def version_of(aliases: Aliases, alias: str = "champion") -> int:
    found = aliases.get(alias)
    assert found is not None
    return found.version


def test_move_alias_from_stale_read_is_refused_and_changes_nothing(memory_store: MemoryStore):
    aliases = Aliases(memory_store, model="flowers")
    first = aliases.move("champion", to=1, expect=None)
    aliases.move("champion", to=2, expect=first)
    with pytest.raises(AliasMoved, match="now points at version 2"):
        aliases.move("champion", to=3, expect=first)
    assert version_of(aliases) == 2


def test_move_alias_away_and_back_still_refuses_the_stale_read(memory_store: MemoryStore):
    aliases = Aliases(memory_store, model="flowers")
    first = aliases.move("champion", to=1, expect=None)
    second = aliases.move("champion", to=2, expect=first)
    aliases.move("champion", to=1, expect=second)
    with pytest.raises(AliasMoved, match="now points at version 1"):
        aliases.move("champion", to=3, expect=first)


def test_move_alias_believed_new_is_refused_when_it_exists(memory_store: MemoryStore):
    aliases = moved(memory_store, 1)
    with pytest.raises(AliasMoved, match="did not exist when the move was decided"):
        aliases.move("champion", to=2, expect=None)
    assert version_of(aliases) == 1


def test_move_alias_that_is_gone_is_refused(memory_store: MemoryStore):
    aliases = moved(memory_store, 1)
    before = aliases.get("champion")
    memory_store.delete(layout.alias("flowers", "champion"))
    with pytest.raises(AliasMoved, match="it is gone"):
        aliases.move("champion", to=2, expect=before)


def test_move_alias_keeps_history_with_times(memory_store: MemoryStore):
    clock = FakeClock()
    aliases = Aliases(memory_store, "flowers", clock)
    first = aliases.move("champion", to=1, expect=None)
    clock.advance(90)
    second = aliases.move("champion", to=2, expect=first)
    assert [(m.version, m.moved_at) for m in second.history] == [
        (1, "2023-11-14T22:13:20.000+00:00"),
        (2, "2023-11-14T22:14:50.000+00:00"),
    ]
    assert aliases.get("champion") == second


def test_move_alias_very_often_keeps_a_bounded_history(memory_store: MemoryStore):
    aliases = moved(memory_store, *range(1, MAX_HISTORY + 11))
    found = aliases.get("champion")
    assert found is not None
    assert [move.version for move in found.history] == list(range(11, MAX_HISTORY + 11))
    assert len(found.previous) == MAX_HISTORY


def test_move_alias_to_a_number_as_name_is_refused(memory_store: MemoryStore):
    with pytest.raises(SpecError, match="alias: found '3', which would read like a version number; use a name"):
        Aliases(memory_store, "flowers").move("3", to=1, expect=None)


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b"])
def test_move_alias_with_a_name_that_is_no_key_is_refused(memory_store: MemoryStore, name: str):
    with pytest.raises(SpecError, match="must be 1 to 63 of"):
        Aliases(memory_store, "flowers").move(name, to=1, expect=None)


def test_move_alias_by_many_at_once_lets_one_through(memory_store: MemoryStore):
    aliases = moved(memory_store, 1)
    before = aliases.get("champion")

    def move(version: int) -> int | None:
        try:
            return aliases.move("champion", to=version, expect=before).version
        except AliasMoved:  # another was first
            return None

    with ThreadPoolExecutor(16) as pool:
        won = [version for version in pool.map(move, range(2, 18)) if version is not None]
    assert len(won) == 1
    assert won == [version_of(aliases)]


def test_rollback_goes_to_the_version_before(memory_store: MemoryStore):
    aliases = moved(memory_store, 1, 2, 3)
    assert aliases.rollback(aliases.before("champion")[0]).version == 2
    assert version_of(aliases) == 2


def test_rollback_again_goes_one_further_back(memory_store: MemoryStore):
    aliases = moved(memory_store, 1, 2, 3)
    aliases.rollback(aliases.before("champion")[0])
    assert aliases.rollback(aliases.before("champion")[0]).version == 1
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        aliases.rollback(aliases.before("champion")[0])


def test_rollback_then_promotion_then_rollback_returns_to_the_rolled_back_version(memory_store: MemoryStore):
    aliases = moved(memory_store, 1, 2, 3)
    aliases.rollback(aliases.before("champion")[0])
    aliases.move("champion", to=4, expect=aliases.get("champion"))
    assert aliases.rollback(aliases.before("champion")[0]).version == 2


def test_rollback_after_the_same_version_twice_goes_to_another(memory_store: MemoryStore):
    aliases = moved(memory_store, 1, 2, 2)
    assert aliases.rollback(aliases.before("champion")[0]).version == 1


def test_rollback_of_a_missing_alias_is_refused(memory_store: MemoryStore):
    with pytest.raises(RegistryError, match="flowers has no alias 'champion'"):
        Aliases(memory_store, "flowers").before("champion")


def test_all_names_every_alias(memory_store: MemoryStore):
    moved(memory_store, 1)
    aliases = moved(memory_store, 2, alias="canary")
    assert {each.name: each.record and each.record.version for each in aliases.listed()} == {"canary": 2, "champion": 1}


@pytest.mark.parametrize("landed", [[True], [False], [False, True], [False, False, True]])
@pytest.mark.parametrize("exists", [False, True])
def test_move_alias_with_lost_answers_moves_once(landed: list[bool], exists: bool):
    store = LosingStore()
    aliases = moved(store, *([1] if exists else []))
    store.landed = list(landed)
    after = aliases.move("champion", to=2, expect=aliases.get("champion"))
    assert after == aliases.get("champion")
    assert [move.version for move in after.history] == ([1, 2] if exists else [2])


def test_move_alias_that_landed_unseen_and_was_moved_on_counts_as_moved():
    class Overtaken(LosingStore):
        """Somebody else moves the alias before the lost answer is looked into."""

        def write_if_absent(self, key: str, data: bytes) -> None:
            try:
                super().write_if_absent(key, data)
            except StoreError:
                aliases = Aliases(self, "flowers")
                aliases.move("champion", to=9, expect=aliases.get("champion"))
                raise

    store = Overtaken(True)
    assert Aliases(store, "flowers").move("champion", to=2, expect=None).version == 2
    assert version_of(Aliases(store, "flowers")) == 9


def test_move_alias_when_storage_never_answers_is_an_error_that_says_try_again():
    store = LosingStore(*[False] * (MAX_TRIES + 5))
    with pytest.raises(StoreError, match="did not say in 5 tries") as caught:
        Aliases(store, "flowers").move("champion", to=1, expect=None)
    assert caught.value.exit_code == 4


def test_get_alias_damaged_is_an_error_that_names_the_object(memory_store: MemoryStore):
    memory_store.write(layout.alias("flowers", "champion"), b'{"version": "one"}')
    with pytest.raises(RegistryError, match=r"aliases/champion\.json is damaged"):
        Aliases(memory_store, "flowers").get("champion")
