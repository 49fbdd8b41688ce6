"""What a driver lets the processes of its cluster know: one value under a name, in Ray's key-value store."""

from __future__ import annotations

PREFIX = "raypipe-notice/"


def post(name: str, value: str) -> None:
    """Let every process of the cluster know a value; it takes the place of the one before."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(PREFIX + name, value, overwrite=True)


def posted(name: str) -> str | None:
    """What was posted last; None: nothing, or it was withdrawn."""
    from ray.experimental import internal_kv

    value = internal_kv._internal_kv_get(PREFIX + name)
    return None if value is None else value.decode()


def withdraw(name: str) -> None:
    """Nothing is posted any more."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(PREFIX + name)
