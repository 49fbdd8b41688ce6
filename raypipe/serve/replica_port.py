"""The port on which a Serve replica takes calls from other deployments, kept on loopback where the node is.

Ray opens it on every address of the machine, as a literal in its code, although raypipe's applications never call each
other. A request to it is unpickled, so whoever reaches it with the cluster's token runs code here.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

OPEN_PORT = "add_port_to_grpc_server"
"""The function of Ray's replica that opens it; there is no setting."""

EVERYWHERE = "[::]:"


def rays_replica() -> Any:
    """Ray's own module of a replica; None where this process is none: the application alone."""
    ray = sys.modules.get("ray")  # importing it takes a container as long as loading a small model
    if ray is None or not ray.is_initialized():
        return None
    from ray.serve._private import replica

    return replica


def keep_on_loopback() -> None:
    """In a replica, before Ray opens the port: have it opened on the node's address if that is a loopback one."""
    replica = rays_replica()
    if replica is None:
        return
    address = sys.modules["ray"].util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        return
    open_port = getattr(replica, OPEN_PORT)
    host = f"[{address}]:" if ":" in address else f"{address}:"

    def open_on_loopback(server: Any, where: str) -> int:
        return open_port(server, where.replace(EVERYWHERE, host) if where.startswith(EVERYWHERE) else where)

    setattr(replica, OPEN_PORT, open_on_loopback)
