"""Which stores every process of a cluster reaches, and which outlive a job: told before a stage runs."""

from __future__ import annotations

import os
import secrets

from raypipe.errors import ObjectMissing, SpecError, StoreAccessError
from raypipe.runtime.connect import in_job
from raypipe.runtime.each_node import addresses_of, alive_nodes, ask_each
from raypipe.spec.addresses import check_address
from raypipe.storage import Store, layout, open_store

REACHABLE = "s3://bucket/prefix, or a folder that every node mounts, as /path"


def open_reachable(uri: str | None = None) -> Store:
    """`open_store`, but what is opened in a job outlives it.

    Raises:
        SpecError: this is a job, and the store is relative to a folder that ends with it.
        StoreAccessError: see `open_store`.
    """
    return open_store(lasting(uri) if in_job() else uri)


def lasting(uri: str | None, option: str = "--store") -> str:
    """A store that outlives a job and that every node may reach; unset: $RAYPIPE_STORE.

    Args:
        option: where it is named, for the message.
    Raises:
        SpecError: none is named, or it is relative to a folder that ends with the job.
    """
    uri = uri or os.environ.get("RAYPIPE_STORE")
    try:
        check_address(uri or "")
    except ValueError as error:  # it becomes part of the job's command, which everyone sees
        raise SpecError(f"{option}: {error}", f"{option} {REACHABLE}") from None
    if uri and ("://" in uri or os.path.isabs(uri)):
        return uri
    found = f"'{uri}' is relative to the job's own folder, which ends with it" if uri else "no store is named"
    raise SpecError(f"{option}: {found}", f"{option} {REACHABLE}")


def check_shared(store: Store) -> None:
    """Refuse a folder that the nodes of this cluster do not share: each would silently write into one of its own.

    Every node that is there now looks for a file written here; a node that comes later is not asked.

    Raises:
        StoreAccessError: a node does not see it.
        ClusterError: a node did not answer.
    """
    nodes = alive_nodes()
    if "://" in store.uri or len(nodes) < 2:
        return
    key, token = layout.probe(secrets.token_hex(16)), secrets.token_bytes(16)
    store.write(key, token)
    try:
        seen = ask_each(nodes, _holds, store.uri, key, token)
    finally:
        store.delete(key)
    blind = [node for node, sees in zip(nodes, seen, strict=True) if not sees]
    if blind:
        raise StoreAccessError(
            f"store {store.uri}: {len(blind)} of the cluster's {len(nodes)} nodes do not see what is written there "
            f"({addresses_of(blind)}); each would keep a folder of its own",
            f"use {REACHABLE}",
        )


def _holds(uri: str, key: str, token: bytes) -> bool:
    try:
        return open_store(uri).read(key) == token
    except (ObjectMissing, StoreAccessError):  # this node has no such folder, or one of its own
        return False
