"""Names like `digits@champion` find their version, and wrong ones say what there is."""

from __future__ import annotations

import pytest

from raypipe.errors import RegistryError, SpecError
from raypipe.records import ModelVersion
from raypipe.registry.aliases import Aliases
from raypipe.registry.stage import register
from raypipe.registry.versions import get, list_models, list_versions, promote, resolve
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
from raypipe.storage.documents import write_document
from raypipe.testing import tiny
from raypipe.testing.fakes import FakeClock, MemoryStore, run_context


def registered(store: Store, model: str, count: int, alias: str | None = "champion") -> list[ModelVersion]:
    dataset = tiny.dataset(store, num_test_rows=10)
    versions = []
    for i in range(count):
        run_id = f"r{model}{i}"
        trained = tiny.trained(store, dataset, run_id=run_id, strength=1 + i)
        ctx = run_context(store, run_id=run_id)
        versions.append(register(RegistrySpec(alias=alias), model, trained, dataset, tiny.report(trained), ctx))
    return versions


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    registered(store, "digits", 3)
    return store


@pytest.mark.parametrize(("ref", "version"), [("digits", 3), ("digits@champion", 3), ("digits@2", 2), ("digits@1", 1)])
def test_resolve_by_name_alias_or_number_finds_the_version(store: MemoryStore, ref: str, version: int):
    assert resolve(store, ref).version == version


def test_resolve_after_a_move_follows_the_alias(store: MemoryStore):
    aliases = Aliases(store, "digits")
    aliases.move("champion", to=1, expect=aliases.get("champion"))
    assert resolve(store, "digits").version == 1


@pytest.mark.parametrize(
    ("ref", "what"),
    [
        ("digits@7", "no version 7 .*it has versions 1-3; aliases champion"),
        ("digits@0", "names no version: numbers are written 1, 2, 3"),
        ("digits@01", "names no version"),
        ("digits@１", "names no version"),
        ("digits@canary", "no alias 'canary' .*it has versions 1-3; aliases champion"),
        ("digist", "no model 'digist' .*there are: digits"),
        ("digits@", "ends in '@'"),
    ],
)
def test_resolve_of_what_is_not_there_says_what_is(store: MemoryStore, ref: str, what: str):
    with pytest.raises(RegistryError, match=what):
        resolve(store, ref)


def test_resolve_of_a_misspelt_model_suggests_the_right_one(store: MemoryStore):
    with pytest.raises(RegistryError, match="did you mean 'digits'"):
        resolve(store, "digist")


def test_resolve_in_an_empty_registry_says_how_to_fill_it():
    with pytest.raises(RegistryError, match="no model is registered there"):
        resolve(MemoryStore(), "digits")


@pytest.mark.parametrize("ref", ["../../etc@1", "Digits", "@champion", "", "a/b@1"])
def test_resolve_of_a_name_that_is_no_key_is_refused(store: MemoryStore, ref: str):
    with pytest.raises(SpecError, match="must be 1 to 63 of"):
        resolve(store, ref)


def test_list_versions_beyond_nine_are_in_number_order():
    store = MemoryStore()
    registered(store, "digits", 11)
    assert [each.name for each in list_versions(store, "digits")] == list(range(1, 12))
    with pytest.raises(RegistryError, match="it has versions 1-11"):
        get(store, "digits", 12)


def test_list_models_shows_only_models_with_a_version(store: MemoryStore):
    store.write(f"{layout.model_artifact('half', 'ab' * 32)}/manifest.json", b"{}")
    registered(store, "wine", 1)
    assert list_models(store) == ["digits", "wine"]
    assert list_versions(store, "half") == []


def test_get_version_damaged_is_an_error_that_names_the_object(store: MemoryStore):
    store.write(layout.version("digits", 2), b"{}")
    with pytest.raises(RegistryError, match=r"versions/2/version\.json is damaged"):
        get(store, "digits", 2)


def test_get_version_that_holds_another_is_an_error(store: MemoryStore):
    other = get(store, "digits", 3)
    write_document(store, layout.version("digits", 2), other)
    with pytest.raises(RegistryError, match="describes digits@3"):
        get(store, "digits", 2)


def test_promote_moves_the_alias_and_tells_both_ends(store: MemoryStore):
    before, after = promote(store, "digits@1", "champion", clock=FakeClock())
    assert before is not None
    assert (before.version, after.version) == (3, 1)
    assert resolve(store, "digits").version == 1


def test_promote_under_a_new_alias_makes_it(store: MemoryStore):
    before, after = promote(store, "digits@2", "canary")
    assert before is None
    assert after.version == 2
    assert resolve(store, "digits@canary").version == 2


def test_promote_to_where_it_points_already_writes_nothing(store: MemoryStore):
    before, after = promote(store, "digits@champion", "champion")
    assert before == after == Aliases(store, "digits").get("champion")


def test_promote_of_a_missing_version_is_refused(store: MemoryStore):
    with pytest.raises(RegistryError, match="no version 9"):
        promote(store, "digits@9")
    assert resolve(store, "digits").version == 3
