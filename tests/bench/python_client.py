"""A closed loop of one request in Python threads, over HTTP or gRPC with the same little work: one JSON line.

    python_client.py http URL CONNECTIONS SECONDS BODY_FILE [NAME=VALUE ...]     headers
    python_client.py grpc HOST:PORT/SERVICE/METHOD CONNECTIONS SECONDS BODY_FILE [NAME=VALUE ...]     metadata

A body is sent as the bytes it is, an answer is read and not parsed.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

Ask = Callable[[], None]


def over_http(url: str, body: bytes, headers: dict[str, str]) -> Ask:
    """A connection of its own."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def ask() -> None:
        connection.request("POST", where.path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(text[:500])

    return ask


def over_grpc(target: str, body: bytes, metadata: dict[str, str]) -> Ask:
    """A channel of its own."""
    import grpc

    address, _, method = target.partition("/")
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)])
    call = channel.unary_unary(f"/{method}")  # neither serializer: bytes in, bytes out

    def ask() -> None:
        call(body, timeout=60, metadata=tuple(metadata.items()), wait_for_ready=True)

    return ask


def main(kind: str, target: str, connections: int, seconds: float, body: bytes, fields: dict[str, str]) -> None:
    connect = over_grpc if kind == "grpc" else over_http
    times: list[float] = []
    failures: list[BaseException] = []
    until = time.perf_counter() + seconds

    def loop() -> None:
        try:
            ask = connect(target, body, fields)
            while (start := time.perf_counter()) < until:
                ask()
                times.append(time.perf_counter() - start)
        except BaseException as error:  # told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=loop) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    percent = statistics.quantiles(times, n=100)
    figures = {"p50_ms": round(percent[49] * 1000, 3), "p99_ms": round(percent[98] * 1000, 3)}
    print(json.dumps({"requests_per_s": round(len(times) / seconds, 1), **figures}))


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
        Path(sys.argv[5]).read_bytes(),
        dict(word.split("=", 1) for word in sys.argv[6:]),
    )
