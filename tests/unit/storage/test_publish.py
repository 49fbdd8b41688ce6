"""Many files appear together, and every byte read back is checked."""

from __future__ import annotations

import json

import pytest

from raypipe.errors import DigestMismatch, ObjectMissing, StoreAccessError, StoreError
from raypipe.storage.publish import MANIFEST, copy_published, publish, read_manifest, read_published
from raypipe.testing.fakes import MemoryStore

FILES = {"weights.safetensors": bytes(range(256)) * 40, "artifact.json": b'{"format": 1}', "empty": b""}


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    publish(store, "m/a", FILES)
    return store


def test_read_published_gives_back_what_was_written(store: MemoryStore):
    assert read_published(store, "m/a", digest=read_manifest(store, "m/a").digest) == FILES
    assert read_published(store, "m/a", ["empty"]) == {"empty": b""}


def test_digest_of_the_same_files_is_the_same_in_any_order_and_place(store: MemoryStore):
    again = publish(store, "elsewhere", dict(reversed(FILES.items())))
    assert again.digest == read_manifest(store, "m/a").digest


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "found 10240 bytes"),
        (lambda data: data[:-1], "found 10239 bytes"),
        (lambda data: data + b"x", "found 10241 bytes"),
        (lambda data: b"", "found 0 bytes"),
    ],
    ids=["flipped", "truncated", "longer", "emptied"],
)
def test_read_published_of_a_damaged_file_is_an_error_that_names_it(store: MemoryStore, damage, told: str):
    store.write("m/a/weights.safetensors", damage(store.read("m/a/weights.safetensors")))
    with pytest.raises(DigestMismatch, match=f"weights.safetensors is damaged: {told}"):
        read_published(store, "m/a")


def test_read_published_of_a_missing_file_is_an_error_that_names_it(store: MemoryStore):
    store.delete("m/a/artifact.json")
    with pytest.raises(ObjectMissing, match=r"m/a/artifact\.json"):
        read_published(store, "m/a")


def test_read_published_without_manifest_is_nothing_complete(store: MemoryStore):
    store.delete(f"m/a/{MANIFEST}")
    with pytest.raises(ObjectMissing, match=r"manifest\.json"):
        read_published(store, "m/a")


def test_read_published_with_another_set_of_files_than_promised_is_an_error(store: MemoryStore):
    promised = read_manifest(store, "m/a").digest
    publish(store, "m/a", {**FILES, "extra": b"x"})
    with pytest.raises(DigestMismatch, match="other files than the record"):
        read_published(store, "m/a", digest=promised)


def test_read_published_when_file_and_manifest_were_changed_together_is_an_error(store: MemoryStore):
    promised = read_manifest(store, "m/a").digest
    publish(store, "m/a", {**FILES, "artifact.json": b'{"format": 2}'})
    with pytest.raises(DigestMismatch, match="other files than the record"):
        read_published(store, "m/a", digest=promised)


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b'{"files": {"a": 1}}', b"\xff"])
def test_read_manifest_that_is_none_is_an_error(store: MemoryStore, manifest: bytes):
    store.write(f"m/a/{MANIFEST}", manifest)
    with pytest.raises(DigestMismatch, match="not a readable manifest"):
        read_published(store, "m/a")


def test_read_published_of_a_file_it_does_not_have_says_what_it_has(store: MemoryStore):
    with pytest.raises(ObjectMissing, match=r"has no file 'tokenizer'; it has .*artifact\.json"):
        read_published(store, "m/a", ["tokenizer"])


def test_read_published_with_a_manifest_that_points_outside_is_refused(store: MemoryStore):
    manifest = json.loads(store.read(f"m/a/{MANIFEST}"))
    manifest["files"]["../../secret"] = manifest["files"].pop("empty")
    store.write(f"m/a/{MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(StoreAccessError, match="cannot be a key"):
        read_published(store, "m/a")


def test_copy_published_checks_every_byte_and_may_be_repeated(store: MemoryStore):
    digest = read_manifest(store, "m/a").digest
    for _ in range(2):
        assert copy_published(store, "m/a", "m/b", digest=digest).digest == digest
    assert read_published(store, "m/b", digest=digest) == FILES


def test_copy_published_of_a_damaged_file_leaves_no_manifest(store: MemoryStore):
    digest = read_manifest(store, "m/a").digest
    store.write("m/a/empty", b"not")
    with pytest.raises(DigestMismatch):
        copy_published(store, "m/a", "m/b", digest=digest)
    assert not store.exists(f"m/b/{MANIFEST}")


# --- over a set that is there --------------------------------------------------------------------------------------

OTHER = {"weights.safetensors": b"other", "artifact.json": b'{"format": 1}', "extra": b"x"}


class BreakingOff(MemoryStore):
    """A store that takes a number of writes and then no more."""

    def __init__(self, writes_left: int) -> None:
        super().__init__()
        self.writes_left = writes_left

    def write(self, key: str, data: bytes | memoryview) -> None:
        if self.writes_left == 0:
            raise StoreError("storage went away")
        self.writes_left -= 1
        super().write(key, data)


@pytest.mark.parametrize("writes", range(3))
def test_publish_over_a_complete_set_that_breaks_off_leaves_the_old_one_whole(writes: int):
    store = BreakingOff(len(FILES) + 1 + writes)
    digest = publish(store, "m/a", FILES).digest
    with pytest.raises(StoreError, match="went away"):
        publish(store, "m/a", OTHER)
    assert read_published(store, "m/a", digest=digest) == FILES
    store.writes_left = 10
    publish(store, "m/a", OTHER)
    assert read_published(store, "m/a") == OTHER


def test_publish_over_another_set_leaves_the_new_one_alone(store: MemoryStore):
    for files in (OTHER, FILES, OTHER):
        publish(store, "m/a", files)
        assert read_published(store, "m/a") == files
        assert len(list(store.list("m/a"))) == len(files) + 1


def test_publish_of_the_same_set_again_writes_its_manifest_alone_and_mends_what_is_damaged():
    store = BreakingOff(100)
    publish(store, "m/a", FILES)
    store.writes_left = 1
    publish(store, "m/a", FILES)
    store.writes_left = 100
    store.write("m/a/empty", b"damaged")
    store.delete("m/a/artifact.json")
    publish(store, "m/a", FILES)
    assert read_published(store, "m/a") == FILES


def test_publish_over_a_damaged_manifest_makes_the_set_whole(store: MemoryStore):
    store.write(f"m/a/{MANIFEST}", b"{")
    publish(store, "m/a", OTHER)
    assert read_published(store, "m/a") == OTHER


def test_any_bit_of_a_manifest_changed_is_refused(store: MemoryStore):
    data = store.read(f"m/a/{MANIFEST}")
    digest = read_manifest(store, "m/a").digest
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        store.write(f"m/a/{MANIFEST}", bytes(changed))
        with pytest.raises((DigestMismatch, ObjectMissing, StoreAccessError)):
            read_published(store, "m/a", digest=digest)
