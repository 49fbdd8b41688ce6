"""A version that is copied out of its registry can be served from there, and nothing damaged leaves."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from raypipe.errors import DigestMismatch, RegistryError
from raypipe.model.predictor import Predictor
from raypipe.records import ModelVersion
from raypipe.registry.export import export, export_archive
from raypipe.registry.stage import register
from raypipe.registry.versions import resolve
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout
from raypipe.storage.local import LocalFolder
from raypipe.testing import tiny
from raypipe.testing.fakes import MemoryStore, run_context

ROWS = {"a": np.array([1.0, -2.0]), "b": np.array([0.5, 3.0])}


def registered(store: Store, *, strength: float = 1.0, run_id: str = "rtest") -> ModelVersion:
    dataset = tiny.dataset(store)
    trained = tiny.trained(store, dataset, strength=strength, run_id=run_id)
    ctx = run_context(store, run_id=run_id)
    return register(RegistrySpec(), "tiny", trained, dataset, tiny.report(trained), ctx)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_export_holds_the_version_alone_and_answers_alike(store: MemoryStore):
    version = registered(store)
    target = MemoryStore()
    export(store, version, target)
    assert resolve(target, "tiny@1") == version
    assert {info.key.split("/")[0] for info in target.list("")} == {"models"}
    here, there = (Predictor.load(each, version.artifact).predict(ROWS).values for each in (store, target))
    np.testing.assert_array_equal(here, there)


def test_export_twice_changes_nothing(store: MemoryStore):
    version, target = registered(store), MemoryStore()
    export(store, version, target)
    before = {info.key: target.read(info.key) for info in target.list("")}
    export(store, version, target)
    assert {info.key: target.read(info.key) for info in target.list("")} == before


def test_export_over_another_version_of_that_number_is_refused_and_changes_nothing(store: MemoryStore):
    other = MemoryStore()
    registered(other, strength=0.5, run_id="rother")
    before = {info.key: other.read(info.key) for info in other.list("")}
    with pytest.raises(RegistryError, match="holds another tiny@1"):
        export(store, registered(store), other)
    assert {info.key: other.read(info.key) for info in other.list("")} == before


def test_export_of_damaged_weights_is_refused_and_makes_no_version(store: MemoryStore):
    version = registered(store)
    key = f"{version.artifact.key}/weights.safetensors"
    data = bytearray(store.read(key))
    data[-1] ^= 1
    store.write(key, bytes(data))
    target = MemoryStore()
    with pytest.raises(DigestMismatch, match="is damaged"):
        export(store, version, target)
    assert list(target.list("")) == []


def test_export_of_a_version_without_a_taken_number_is_whole(store: MemoryStore):
    version = registered(store)
    record = version.to_json()
    store.write(layout.version("tiny", 1), record)  # neither sealed nor with a number, as older raypipes wrote it
    store.delete(layout.number("tiny", 1))
    target = MemoryStore()
    export(store, version, target)
    assert resolve(target, "tiny@1") == version


def test_archive_unpacks_to_a_store_others_can_read(store: MemoryStore, tmp_path: Path):
    version = registered(store)
    file = tmp_path / "model.tar.gz"
    export_archive(store, version, file)
    with tarfile.open(file) as archive:
        assert {(member.uid, member.mode) for member in archive} == {(0, 0o755), (0, 0o644)}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert resolve(LocalFolder(str(tmp_path / "unpacked")), "tiny@1") == version
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_archive_does_not_replace_a_file_and_needs_its_folder(store: MemoryStore, tmp_path: Path):
    version = registered(store)
    file = tmp_path / "model.tar.gz"
    file.write_bytes(b"precious")
    with pytest.raises(RegistryError, match="is there already"):
        export_archive(store, version, file)
    assert file.read_bytes() == b"precious"
    with pytest.raises(RegistryError, match="its folder is not there"):
        export_archive(store, version, tmp_path / "nowhere" / "model.tar.gz")
