"""Records of the registry that were changed, moved or forged are refused, and numbers never name two models."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from raypipe.errors import RegistryError
from raypipe.records import ArtifactRef, ModelVersion
from raypipe.registry.aliases import Aliases
from raypipe.registry.stage import register
from raypipe.registry.versions import (
    TakenNumber,
    check_artifact,
    get,
    list_models,
    list_versions,
    promote,
    resolve,
    rollback,
)
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
from raypipe.storage.documents import write_document
from raypipe.testing import tiny
from raypipe.testing.fakes import MemoryStore, run_context

VERSION_1 = layout.version("digits", 1)
NUM_FLIPS = 400


def registered(store: Store, run_id: str, strength: float) -> ModelVersion:
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset, run_id=run_id, strength=strength)
    ctx = run_context(store, run_id=run_id)
    return register(RegistrySpec(), "digits", trained, dataset, tiny.report(trained), ctx)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for number in (1, 2, 3):
        registered(store, f"r{number}", number)
    return store


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (VERSION_1, lambda store: get(store, "digits", 1)),
        (layout.number("digits", 1), lambda store: get(store, "digits", 1)),
        (layout.alias("digits", "champion"), lambda store: resolve(store, "digits")),
    ],
    ids=["version", "number", "alias"],
)
def test_each_of_400_bit_flips_is_refused(store: MemoryStore, key: str, read: Callable[[Store], object]):
    data, draw = store.read(key), random.Random(0)
    for _ in range(NUM_FLIPS):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        store.write(key, bytes(changed))
        with pytest.raises(RegistryError, match="is damaged"):
            read(store)


def forge(store: Store, **changes: object) -> None:
    """Version 1 written anew with other values, and with a digest that matches them."""
    write_document(store, VERSION_1, get(store, "digits", 1).model_copy(update=changes))


def test_version_that_names_the_artifact_of_another_is_refused(store: MemoryStore):
    forge(store, artifact=get(store, "digits", 2).artifact)
    with pytest.raises(RegistryError, match="its evaluation is that of another model"):
        get(store, "digits", 1)


def test_version_that_is_wholly_another_under_its_number_is_refused(store: MemoryStore):
    write_document(store, VERSION_1, get(store, "digits", 2).model_copy(update={"version": 1}))
    with pytest.raises(RegistryError, match=r"number 1 was given to artifact \w{12} of run r1; .* of run r2"):
        resolve(store, "digits@1")


def test_version_that_names_files_elsewhere_is_refused(store: MemoryStore):
    artifact = get(store, "digits", 1).artifact
    forge(store, artifact=artifact.model_copy(update={"key": "runs/r2/train/artifact"}))
    with pytest.raises(RegistryError, match="its artifact is runs/r2/train/artifact, not that of its digest"):
        get(store, "digits", 1)


def test_version_without_a_digest_is_refused_where_its_number_was_given_out(store: MemoryStore):
    store.write(VERSION_1, get(store, "digits", 1).to_json())
    with pytest.raises(RegistryError, match="without a digest"):
        get(store, "digits", 1)


def test_version_whose_number_nobody_took_is_refused(store: MemoryStore):
    store.delete(layout.number("digits", 1))
    with pytest.raises(RegistryError, match="nobody took number 1"):
        get(store, "digits", 1)


def test_version_of_an_older_raypipe_is_read(store: MemoryStore):
    version = get(store, "digits", 1)
    store.delete(layout.number("digits", 1))
    store.write(VERSION_1, version.to_json())
    assert get(store, "digits", 1) == version


@pytest.mark.parametrize("changed", ["model", "name"])
def test_alias_file_of_another_name_is_not_followed(store: MemoryStore, changed: str):
    alias = Aliases(store, "digits").get("champion")
    assert alias is not None
    write_document(store, layout.alias("digits", "champion"), alias.model_copy(update={changed: "other"}))
    with pytest.raises(RegistryError, match=r"is damaged: it is the alias .*other"):
        resolve(store, "digits")


def test_alias_of_an_older_raypipe_is_read_and_sealed_when_it_moves(store: MemoryStore):
    key = layout.alias("digits", "champion")
    alias = Aliases(store, "digits").get("champion")
    assert alias is not None
    store.write(key, alias.to_json())
    promote(store, "digits@1")
    assert resolve(store, "digits").version == 1 and b'"sha256"' in store.read(key)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_number_of_a_deleted_version_is_not_given_out_again(store: MemoryStore):
    for number in (2, 3):
        store.delete_prefix(f"{layout.versions('digits')}/{number}")
    assert registered(store, "r4", 4).version == 4
    with pytest.raises(RegistryError, match="digits has no version 3"):
        get(store, "digits", 3)


def test_number_given_out_by_an_older_raypipe_is_not_given_out_again(store: MemoryStore):
    store.delete_prefix(layout.numbers("digits"))
    assert registered(store, "r4", 4).version == 4


def test_registration_that_broke_off_after_its_number_keeps_it(store: MemoryStore):
    ours = registered(store, "r4", 4)
    store.delete(layout.version("digits", 4))  # as far as it had come
    assert registered(store, "r4", 4).version == 4
    store.delete(layout.version("digits", 4))
    assert registered(store, "r5", 5).version == 5
    assert ours.version == 4


def test_number_whose_record_is_damaged_stays_taken(store: MemoryStore):
    store.delete(VERSION_1)
    for number in (2, 3):
        store.delete(layout.version("digits", number))
    store.write(layout.number("digits", 3), b"{")
    assert registered(store, "r4", 4).version == 4


def test_taken_number_says_by_whom(store: MemoryStore):
    version = get(store, "digits", 2)
    data = store.read(layout.number("digits", 2))
    expected = TakenNumber(model="digits", version=2, run_id="r2", artifact=version.artifact.digest)
    assert expected.to_json().removesuffix(b"\n}") in data


# --- what is gone or damaged ---------------------------------------------------------------------------------------


def test_rollback_to_a_version_that_is_gone_is_refused_and_names_one_that_is_there(store: MemoryStore):
    store.delete_prefix(f"{layout.versions('digits')}/2")
    with pytest.raises(RegistryError, match="pointed at version 2 before, and cannot go back to it") as caught:
        rollback(store, "digits")
    assert caught.value.hint.startswith("raypipe promote digits@1 --alias champion")
    assert resolve(store, "digits").version == 3


def test_rollback_to_a_version_whose_weights_are_damaged_is_refused(store: MemoryStore):
    damage_weights(store, get(store, "digits", 2))
    with pytest.raises(RegistryError, match="digits@2 cannot be served"):
        rollback(store, "digits")
    assert resolve(store, "digits").version == 3


def test_rollback_to_a_version_that_is_whole_moves(store: MemoryStore):
    before, after = rollback(store, "digits")
    assert (before.version, after.version, resolve(store, "digits").version) == (3, 2, 2)


def test_promote_of_a_damaged_artifact_is_refused_and_moves_nothing(store: MemoryStore):
    damage_weights(store, get(store, "digits", 1))
    with pytest.raises(RegistryError, match=r"digits@1 cannot be served: .*weights\.safetensors is damaged"):
        promote(store, "digits@1")
    assert resolve(store, "digits").version == 3


def test_artifact_that_is_whole_passes(store: MemoryStore):
    check_artifact(store, get(store, "digits", 1))


def test_alias_whose_version_is_gone_says_so_and_what_to_do(store: MemoryStore):
    store.delete_prefix(f"{layout.versions('digits')}/3")
    with pytest.raises(RegistryError, match="digits@champion points at version 3: digits has no version 3") as caught:
        resolve(store, "digits")
    assert "raypipe rollback digits --alias champion" in caught.value.hint


def test_damaged_version_is_listed_with_the_reason_among_the_others(store: MemoryStore):
    store.write(layout.version("digits", 2), b"{}")
    listed = list_versions(store, "digits")
    assert [(each.name, each.record is not None) for each in listed] == [(1, True), (2, False), (3, True)]
    assert "versions/2/version.json is damaged" in listed[1].problem


def test_damaged_version_does_not_stop_registrations(store: MemoryStore):
    store.write(layout.version("digits", 2), b"{}")
    assert registered(store, "r4", 4).version == 4
    assert registered(store, "r1", 1).version == 1


def damage_weights(store: Store, version: ModelVersion) -> None:
    key = f"{version.artifact.key}/weights.safetensors"
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.write(key, bytes(data))


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "a" * 30 + ".."])
def test_digest_that_cannot_name_an_artifact_does_not_stop_the_list(store: MemoryStore, digest: str):
    forge(store, artifact=ArtifactRef(key="a", digest=digest))
    listed = list_versions(store, "digits")
    assert [each.record is None for each in listed] == [True, False, False]
    assert "its artifact is a, not that of its digest" in listed[0].problem


def test_folder_that_no_model_can_be_named_after_is_no_model(store: MemoryStore):
    store.write("models/Foo Bar/versions/1/version.json", b"{}")
    assert list_models(store) == ["digits"]


@pytest.mark.parametrize("number", ["0", "-1", "9" * 30, "9" * 4000])
def test_alias_at_a_number_that_was_never_given_out_is_damaged(store: MemoryStore, number: str):
    key = layout.alias("digits", "champion")
    forged = f'"model":"digits","name":"champion","version":{number},"nonce":"x","moved_at":"","history":[]'
    store.write(key, f"{{{forged}}}".encode())
    with pytest.raises(RegistryError, match="is damaged: not a readable Alias"):
        resolve(store, "digits")
    assert "is damaged" in Aliases(store, "digits").listed()[0].problem


def test_number_of_thousands_of_digits_names_no_version(store: MemoryStore):
    with pytest.raises(RegistryError, match="names no version"):
        resolve(store, f"digits@{'9' * 5000}")
