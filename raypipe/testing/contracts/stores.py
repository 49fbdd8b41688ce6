"""What every store must hold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from raypipe.errors import ObjectChanged, ObjectExists, ObjectMissing, StoreAccessError
from raypipe.storage import Store, open_store

BIG_BYTES = 20 * 2**20
RACERS = 16


class StoreContract:
    """A store keeps what it acknowledged, tells winners from losers, and lists exactly.

    Args:
        store: an empty one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def checks(cls) -> list[str]:
        """Names of all checks, for `pytest.mark.parametrize`."""
        return [name for name in vars(cls) if name.startswith("check_")]

    def check_write_then_read(self) -> None:
        """A write is seen by the next read, the second one too; an empty object is an object."""
        for data in (b"one", b"two", b"", bytes(range(256))):
            self._store.write("a/b", data)
            assert self._store.read("a/b") == data
            assert self._store.read_with_etag("a/b")[0] == data
            assert self._store.exists("a/b")

    def check_big_object(self) -> None:
        """20 MB come back to the byte."""
        data = np.random.default_rng(0).bytes(BIG_BYTES)
        self._store.write("big", data)
        assert self._store.read("big") == data
        assert [info.size_bytes for info in self._store.list("")] == [BIG_BYTES]

    def check_read_range(self) -> None:
        """Exactly the bytes asked for; what lies behind the end is not there and no error."""
        data = np.random.default_rng(0).bytes(3 * 2**20)
        self._store.write("a/b", data)
        size = len(data)
        for start, stop in ((0, 1), (5, 2**20 + 7), (size - 3, size), (size - 3, size + 9), (0, size + 1)):
            assert bytes(self._store.read_range("a/b", start, stop)) == data[start:stop]
        for start in (size, size + 5):
            assert not self._store.read_range("a/b", start, start + 4)
        for key in ("nowhere", "a", "a/b/c"):
            _raised(ObjectMissing, lambda key=key: self._store.read_range(key, 0, 4))

    def check_missing(self) -> None:
        """What is not there is ObjectMissing, named; a folder is no object."""
        self._store.write("a/b", b"1")
        for key in ("nowhere", "a", "a/b/c", "a/bc"):
            error = _raised(ObjectMissing, lambda key=key: self._store.read(key))
            assert key in str(error)
            _raised(ObjectMissing, lambda key=key: self._store.read_with_etag(key))
            assert not self._store.exists(key)

    def check_delete(self) -> None:
        """A deleted object is gone; deleting what is not there is no error."""
        self._store.write("a/b", b"1")
        self._store.write("a/c", b"1")
        for _ in range(2):
            self._store.delete("a/b")
        assert not self._store.exists("a/b")
        assert [info.key for info in self._store.list("a")] == ["a/c"]

    def check_delete_prefix(self) -> None:
        """All under a prefix goes, and nothing beside it."""
        for key in ("a/b/1", "a/b/c/2", "a/bc", "a/b.json"):
            self._store.write(key, b"")
        self._store.delete_prefix("a/b")
        assert [info.key for info in self._store.list("")] == ["a/b.json", "a/bc"]

    def check_list(self) -> None:
        """Exactly what lies under the prefix, in key order, with sizes; also where a folder name begins another."""
        keys = ["a/b.json", "a/b/10", "a/b/2", "a/b/c/d", "a/bc/x", "b", "z z+%20/ü"]
        for key in keys[::-1]:
            self._store.write(key, key.encode())
        assert [info.key for info in self._store.list("")] == sorted(keys)
        assert [info.key for info in self._store.list("a/b")] == ["a/b/10", "a/b/2", "a/b/c/d"]
        assert [info.size_bytes for info in self._store.list("a/b")] == [6, 5, 7]
        for prefix in ("a/b/2", "nowhere", "b", "a/b.j"):
            assert list(self._store.list(prefix)) == []

    def check_list_many(self) -> None:
        """More objects than one page of a listing."""
        with ThreadPoolExecutor(RACERS) as pool:
            list(pool.map(lambda i: self._store.write(f"many/{i:04d}", b""), range(1100)))
        assert [info.key for info in self._store.list("many")] == [f"many/{i:04d}" for i in range(1100)]

    def check_write_if_absent(self) -> None:
        """The first writes, the second is refused and changes nothing; after a delete it may again."""
        self._store.write_if_absent("a/b", b"first")
        _raised(ObjectExists, lambda: self._store.write_if_absent("a/b", b"second"))
        assert self._store.read("a/b") == b"first"
        self._store.delete("a/b")
        self._store.write_if_absent("a/b", b"third")
        assert self._store.read("a/b") == b"third"

    def check_write_if_absent_race(self) -> None:
        """Of many at once one wins, and the object is the winner's."""

        def attempt(i: int) -> bool:
            try:
                self._store.write_if_absent("race", str(i).encode())
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(RACERS) as pool:
            won = [i for i, has in enumerate(pool.map(attempt, range(RACERS))) if has]
        assert len(won) == 1
        assert self._store.read("race") == str(won[0]).encode()

    def check_write_if_unchanged(self) -> None:
        """Only the tag of the present object replaces it; a stale one, and a gone object, are refused."""
        self._store.write("a", b"1")
        _, first = self._store.read_with_etag("a")
        self._store.write_if_unchanged("a", b"2", first)
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("a", b"3", first))
        assert self._store.read("a") == b"2"
        _, second = self._store.read_with_etag("a")
        self._store.delete("a")
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("a", b"4", second))
        _raised(ObjectChanged, lambda: self._store.write_if_unchanged("never", b"4", second))
        assert not self._store.exists("a") and not self._store.exists("never")

    def check_write_if_unchanged_counter(self) -> None:
        """Many who count together lose no count."""
        self._store.write("count", b"0")

        def add() -> None:
            for _ in range(500):
                data, etag = self._store.read_with_etag("count")
                try:
                    return self._store.write_if_unchanged("count", str(int(data) + 1).encode(), etag)
                except ObjectChanged:
                    continue
            raise AssertionError("500 tries, and somebody else was always first")

        with ThreadPoolExecutor(RACERS) as pool:
            for future in [pool.submit(add) for _ in range(3 * RACERS)]:
                future.result()
        assert self._store.read("count") == str(3 * RACERS).encode()
        assert [info.key for info in self._store.list("")] == ["count"]

    def check_keys_stay_inside(self) -> None:
        """A key that might leave the store, or is read differently elsewhere, is refused everywhere."""
        store = self._store
        for key in ("../out", "a/../../out", "/out", "a//b", "a/", ".", "a/./b", "a\nb", "a\x00b", "x" * 1025, "a#1"):
            for action in (store.read, store.delete, store.exists, lambda k: list(store.list(k))):
                _raised(StoreAccessError, lambda action=action, key=key: action(key))
            for write in (store.write, store.write_if_absent):
                _raised(StoreAccessError, lambda write=write, key=key: write(key, b"x"))
            _raised(StoreAccessError, lambda key=key: store.write_if_unchanged(key, b"x", "tag"))
        _raised(StoreAccessError, lambda: store.read(""))
        assert list(store.list("")) == []

    def check_probe(self) -> None:
        """`check` passes and leaves nothing."""
        self._store.check()
        assert list(self._store.list("")) == []

    def check_opened_again(self) -> None:
        """`open_store(uri)` opens the same store."""
        if self._store.uri.startswith("memory:"):
            return  # by nature of this process alone
        self._store.write("a", b"1")
        assert open_store(self._store.uri).read("a") == b"1"


def _raised(kind: type[Exception], action: Callable[[], Any]) -> Exception:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
