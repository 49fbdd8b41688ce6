"""A version appears whole or not at all, under one number, however often registering is repeated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from raypipe.errors import DigestMismatch, GateError, ObjectMissing, RegistryError, StoreError
from raypipe.records import DatasetVersion, ModelVersion, TrainResult
from raypipe.registry.aliases import Aliases
from raypipe.registry.stage import register
from raypipe.registry.versions import list_versions, resolve
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
from raypipe.storage.publish import read_published
from raypipe.testing import tiny
from raypipe.testing.fakes import MemoryStore, run_context
from raypipe.testing.faults import LosingStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def dataset(store: MemoryStore) -> DatasetVersion:
    return tiny.dataset(store, num_test_rows=10)


def registered(
    store: Store, dataset: DatasetVersion, trained: TrainResult, run_id: str = "rtest", alias: str | None = "champion"
) -> ModelVersion:
    ctx = run_context(store, run_id=run_id)
    return register(RegistrySpec(alias=alias), "tiny", trained, dataset, tiny.report(trained), ctx)


def test_register_first_model_is_version_1_and_champion(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    version = registered(store, dataset, trained)
    assert (version.model, version.version, version.alias) == ("tiny", 1, "champion")
    assert version.metrics == {"accuracy": 0.9}
    assert resolve(store, "tiny@champion") == version


def test_register_copies_the_artifact_so_that_the_run_may_go(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    there = read_published(store, trained.artifact.key)
    version = registered(store, dataset, trained)
    store.delete_prefix(layout.run("rtest"))
    assert read_published(store, version.artifact.key, digest=version.artifact.digest) == there


def test_register_again_in_the_same_run_answers_the_same_version(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    assert registered(store, dataset, trained) == registered(store, dataset, trained)
    assert len(list_versions(store, "tiny")) == 1


def test_register_again_after_later_versions_answers_the_same_and_leaves_the_alias(
    store: MemoryStore, dataset: DatasetVersion
):
    trained = tiny.trained(store, dataset)
    first = registered(store, dataset, trained)
    registered(store, dataset, tiny.trained(store, dataset, run_id="r2", strength=2), run_id="r2")
    assert registered(store, dataset, trained) == first
    assert resolve(store, "tiny").version == 2


def test_register_in_another_run_makes_the_next_version_of_the_same_artifact(
    store: MemoryStore, dataset: DatasetVersion
):
    trained = tiny.trained(store, dataset)
    versions = [registered(store, dataset, trained, run_id=run_id) for run_id in ("r1", "r2")]
    assert [version.version for version in versions] == [1, 2]
    assert versions[0].artifact == versions[1].artifact


def test_register_without_alias_leaves_aliases_alone(store: MemoryStore, dataset: DatasetVersion):
    registered(store, dataset, tiny.trained(store, dataset), alias=None)
    assert Aliases(store, "tiny").listed() == []


def test_register_with_a_failed_gate_is_refused_and_writes_nothing(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    report = tiny.report(trained, accuracy=0.5, gate=0.9)
    with pytest.raises(GateError, match=r"1 of 1 gates, nothing was registered: accuracy >= 0.9: 0.5 against 0.9"):
        register(RegistrySpec(), "tiny", trained, dataset, report, run_context(store))
    assert list(store.list(layout.models())) == []


def test_register_with_the_report_of_another_artifact_is_refused(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    other = tiny.trained(store, dataset, run_id="r2", strength=0)
    with pytest.raises(RegistryError, match="the report judges artifact"):
        register(RegistrySpec(), "tiny", trained, dataset, tiny.report(other), run_context(store))


@pytest.mark.parametrize("name", ["artifact.json", "weights.safetensors"])
def test_register_of_a_damaged_artifact_is_refused_and_makes_no_version(
    store: MemoryStore, dataset: DatasetVersion, name: str
):
    trained = tiny.trained(store, dataset)
    key = f"{trained.artifact.key}/{name}"
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.write(key, bytes(data))
    with pytest.raises(DigestMismatch, match="is damaged"):
        registered(store, dataset, trained)
    assert list_versions(store, "tiny") == []


def test_register_of_a_missing_artifact_is_refused(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    store.delete_prefix(trained.artifact.key)
    with pytest.raises(ObjectMissing, match=r"manifest\.json does not exist"):
        registered(store, dataset, trained)


@pytest.mark.parametrize("landed", [[True], [False], [False, True]])
def test_register_with_lost_answers_makes_one_version(landed: list[bool]):
    store = LosingStore()
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset)
    store.landed = list(landed)
    assert registered(store, dataset, trained).version == 1
    assert len(list_versions(store, "tiny")) == 1
    assert resolve(store, "tiny").version == 1


def test_register_stopped_before_the_alias_moved_is_finished_by_the_next_try():
    store = LosingStore()
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset)
    registered(store, dataset, trained, alias=None)  # as far as a crash let it come
    version = registered(store, dataset, trained)
    assert version.version == 1
    assert resolve(store, "tiny").version == 1


def test_register_when_storage_never_answers_is_an_error_that_says_try_again():
    store = LosingStore()
    dataset = tiny.dataset(store, num_test_rows=10)
    trained = tiny.trained(store, dataset)
    store.landed = [False] * 9
    with pytest.raises(StoreError) as caught:
        registered(store, dataset, trained)
    assert caught.value.transient
    assert list_versions(store, "tiny") == []


def test_register_by_many_runs_at_once_gives_each_its_own_dense_number(store: MemoryStore, dataset: DatasetVersion):
    trained = [tiny.trained(store, dataset, run_id=f"r{i}", strength=1 + i) for i in range(12)]

    def go(i: int) -> int:
        return registered(store, dataset, trained[i], run_id=f"r{i}", alias=None).version

    with ThreadPoolExecutor(12) as pool:
        numbers = list(pool.map(go, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert {v.record.run_id: v.name for v in list_versions(store, "tiny") if v.record} == {
        f"r{i}": n for i, n in enumerate(numbers)
    }


def test_register_of_one_run_by_many_at_once_makes_one_version(store: MemoryStore, dataset: DatasetVersion):
    trained = tiny.trained(store, dataset)
    with ThreadPoolExecutor(12) as pool:
        versions = list(pool.map(lambda _: registered(store, dataset, trained, alias=None), range(12)))
    assert {version.version for version in versions} == {1}
    assert len(list_versions(store, "tiny")) == 1


def test_register_by_many_runs_at_once_leaves_the_alias_at_the_last_version(
    store: MemoryStore, dataset: DatasetVersion
):
    trained = [tiny.trained(store, dataset, run_id=f"r{i}", strength=1 + i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: registered(store, dataset, trained[i], run_id=f"r{i}"), range(4)))
    assert resolve(store, "tiny").version == 4
