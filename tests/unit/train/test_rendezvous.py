"""Where the processes of a training find each other."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
import ray
import torch.distributed as dist

from raypipe.train import rendezvous

ADDRESS = "127.0.0.1"


@pytest.fixture
def cluster_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as on a node that others reach, though what it says stays on this machine."""
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: ADDRESS)
    monkeypatch.setattr(rendezvous, "is_loopback", lambda address: False)
    yield
    rendezvous._stores.clear()


@pytest.mark.usefixtures("cluster_node")
def test_port_of_a_node_is_nobody_elses_from_the_moment_it_is_told_and_the_group_forms_there() -> None:
    address, port = rendezvous.open_store_of_this_node(1)

    with socket.socket() as other, pytest.raises(OSError, match="in use") as caught:
        other.bind((address, port))
    assert caught.value.errno == errno.EADDRINUSE
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=0, world_size=1)
    try:
        assert dist.get_world_size() == 1
    finally:
        dist.destroy_process_group()
