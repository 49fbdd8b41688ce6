"""Which route answers a method and path, and what is said where none does."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace

from raypipe.errors import RequestError
from raypipe.serve.protocols import Protocol, Route


class RouteTable:
    """All routes of one replica.

    Args:
        protocols: by name. Where two have one path, the first one answers; its words are also for paths of nobody.
    """

    def __init__(self, protocols: Mapping[str, Protocol]) -> None:
        self._protocols = protocols
        self._routes: dict[tuple[str, str], Route] = {}
        for protocol in protocols.values():
            for route in protocol.routes():
                self._routes.setdefault((route.method, route.path), route)
        names = {protocol: name for name, protocol in protocols.items()}
        for protocol in protocols.values():
            protocol.started([(names[route.protocol], route.protocol, route) for route in self._routes.values()])

    def all(self) -> list[Route]:
        """All that is answered."""
        return list(self._routes.values())

    def of(self, protocol: str) -> list[Route]:
        """What a protocol answers here."""
        return [route for route in self._routes.values() if route.protocol is self._protocols[protocol]]

    def predict_paths(self, protocol: str) -> list[str]:
        """Where a protocol answers with predictions."""
        return [route.path for route in self.of(protocol) if route.method == "POST" and route.scope == "predict"]

    def find(self, method: str, path: str) -> Route | None:
        """The route that answers; HEAD is answered as GET is."""
        return self._routes.get(("GET" if method == "HEAD" else method, path))

    def streams(self, path: str) -> bool:
        """Whether an answer at this path may come in pieces."""
        route = self._routes.get(("POST", path))
        return route is not None and route.streams

    def add_path(self, path: str, method: str, known_path: str) -> None:
        """Answer requests to `path` as those to `known_path`; what was answered there before no longer is.

        Args:
            path: below the route prefix; chosen by who runs this replica, never by a client.
            known_path: of a route that is there, with the same method.
        """
        self._routes[method, path] = replace(self._routes[method, known_path], path=path)

    def protocol_at(self, path: str) -> Protocol:
        """Whose clients ask at a path that is not answered."""
        protocols = list(self._protocols.values())
        named = (each for each in protocols if each.prefixes and path.startswith(each.prefixes))
        return next(named, protocols[0])

    def not_found(self, method: str, path: str) -> RequestError:
        """Why a request is not answered: 405 with the methods that are, or 404 with the path that may be meant."""
        allowed = sorted({known for known, where in self._routes if where == path})
        if allowed:
            methods = ", ".join([*allowed, "HEAD"] if "GET" in allowed else allowed)
            return RequestError(
                f"{method[:16]} is not answered at {path}", f"use {methods}", status=405, headers={"allow": methods}
            )
        known = list(dict.fromkeys(where for _, where in self._routes))
        close = difflib.get_close_matches(path[:80], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"this endpoint answers {', '.join(known)}"
        return RequestError(f"no such path: {path[:80]}", hint, status=404)
