"""Where the processes of a training find each other, so that on one machine nobody else can join in.

torch's store listens on every address of the machine, and no setting changes that; it does take a socket that listens
already. So the first process opens that socket itself, on one address, and keeps it: a port that was only looked for
could be another program's by the time torch opens it.
"""

from __future__ import annotations

import ipaddress
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist

BACKLOG = 512

TIMEOUT_S = 1800
"""Longest wait of one worker for the others, in any operation they do together."""

_stores: list[Any] = []
"""The store this process serves. torch's own one shares its server, which ends with the last that knows it."""


def open_store(address: str, world_size: int, timeout_s: int = TIMEOUT_S) -> int:
    """In the first process: serve the group's store on an address of this machine; returns its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen(BACKLOG)
        port = listener.getsockname()[1]
        handle = listener.detach()  # the store's from now on
    _stores[:] = [
        dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]  (torch's documentation has it here)
            address,
            port,
            world_size,
            is_master=True,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
            multi_tenant=True,  # torch opens it again, by address and port, when the group is formed
            master_listen_fd=handle,
        )
    ]
    return port


def open_store_of_this_node(world_size: int, timeout_s: int = TIMEOUT_S) -> tuple[str, int]:
    """`open_store` where the other nodes of a cluster reach this one: its address and port."""
    import ray

    address = ray.util.get_node_ip_address()
    return address, open_store(address, world_size, timeout_s)


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    return ipaddress.ip_address(address).is_loopback
