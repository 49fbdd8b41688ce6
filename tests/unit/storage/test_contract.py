"""Memory and folder against the store contract; S3 is in tests/integration/test_s3_store.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts import StoreContract
from raypipe.testing.fakes import MemoryStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "local": lambda folder: LocalFolder(str(folder / "store")),
}


@pytest.mark.parametrize("check", StoreContract.checks())
@pytest.mark.parametrize("kind", list(STORES))
def test_store_holds_the_contract(kind: str, check: str, tmp_path: Path):
    getattr(StoreContract(STORES[kind](tmp_path)), check)()
