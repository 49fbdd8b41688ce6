"""Where the processes of a training find each other, so that on one machine nobody else can join in.

torch's store listens on every address of the machine, and no setting changes that; it does take a socket that listens
already. So on a loopback address the first process opens that socket itself.
"""

from __future__ import annotations

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
    """In the first process: serve the group's store on a loopback address; returns its port."""
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
