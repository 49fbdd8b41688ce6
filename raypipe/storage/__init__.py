"""Objects at rest.  To add a store: one file with a Store, one line in STORES, and the store contract finds it."""

from __future__ import annotations

import os
from collections.abc import Callable

from raypipe.errors import StoreAccessError
from raypipe.spec.addresses import check_address
from raypipe.storage.store import ObjectInfo, Store

DEFAULT_STORE = ".raypipe"


def _local(uri: str) -> Store:
    from raypipe.storage.local import LocalFolder

    return LocalFolder(uri.removeprefix("file://"))


def _s3(uri: str) -> Store:
    from raypipe.storage.s3 import S3Bucket  # boto3 takes 0.3 s to import; local stores do not need it

    return S3Bucket(uri)


STORES: dict[str, Callable[[str], Store]] = {"": _local, "file": _local, "s3": _s3}


def open_store(uri: str | None = None) -> Store:
    """The store at a folder or `s3://bucket/prefix`; unset: $RAYPIPE_STORE, else `.raypipe` here.

    Raises:
        StoreAccessError: no such kind of store, or it cannot be opened.
    """
    uri = uri or os.environ.get("RAYPIPE_STORE") or DEFAULT_STORE
    try:
        check_address(uri)
    except ValueError as error:
        raise StoreAccessError(f"store: {error}", "a folder, or s3://bucket/prefix") from None
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if scheme not in STORES:
        raise StoreAccessError(f"store {uri}: '{scheme}://' is not supported", "a folder, or s3://bucket/prefix")
    return STORES[scheme](uri)


__all__ = ["DEFAULT_STORE", "STORES", "ObjectInfo", "Store", "open_store"]
