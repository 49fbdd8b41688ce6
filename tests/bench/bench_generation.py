"""What POST /generate costs beside the network: milliseconds to the first token and from one token to the next.

A GPT of 0.35 million parameters and a context of 64 characters, untrained; one torch thread. `forward`: the network
reads the prompt, in this process. `writer`: its first token, drawn and as text, here too. `http`: from sending a
request to the first event, over a connection that stays open, from a replica in a process of its own without Ray or
HAProxy; `streamed`: from one event to the next; `whole`: a text that comes at once, a token. Turns are taken, figures
are medians. JSON lines; the last is the headline.

    .venv/bin/python tests/bench/bench_generation.py [--rounds 200] [--tokens 32]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

FIRST_BAR = 2.0
"""First token over HTTP, in forwards."""

TEXT = "What we know we owe to those who asked before us, and wrote it down; 'tis so! " * 40
PROMPT = (TEXT * 2)[:60]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--tokens", type=int, default=32)
    options.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        asyncio.run(serve(chosen.serve))
        return
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        measure(folder, chosen.rounds, chosen.tokens)


def measure(folder: str, rounds: int, tokens: int) -> None:
    import torch

    torch.set_num_threads(1)
    predictor = made(folder).predictor
    writer = predictor.writer
    assert writer is not None
    prompt = writer.read(PROMPT)
    say(python=platform.python_version(), torch=torch.__version__, load=os.getloadavg()[0], rounds=rounds)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    found: dict[str, list[float]] = {}
    try:
        client = Client(int(server.stdout.readline()))
        for seed in range(rounds + 10):
            figures = {
                "forward": timed(lambda: predictor._module(prompt)),
                "writer": timed(lambda seed=seed: next(writer.write(prompt, tokens, seed=seed, temperature=1.0))),
                **client.streamed(tokens, seed),
                "whole": client.whole(tokens, seed) / tokens,
            }
            for name, value in figures.items() if seed >= 10 else ():
                found.setdefault(name, []).append(value)
    finally:
        server.kill()
        server.wait()
    medians = {name: statistics.median(values) for name, values in found.items()}
    say(unit="ms", **{name: round(1e3 * value, 3) for name, value in medians.items()})
    ratio = medians["http"] / medians["forward"]
    say(headline="first token over HTTP, in forwards", ratio=round(ratio, 2), bar=FIRST_BAR, holds=ratio <= FIRST_BAR)


def timed(call: Any) -> float:
    """Seconds of one call."""
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


class Client:
    """One connection, no more than what HTTP needs."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def streamed(self, tokens: int, seed: int) -> dict[str, float]:
        start = self._send(tokens, seed, stream=True)
        arrived: list[float] = []
        text = b""
        while not text.endswith(b"0\r\n\r\n"):
            text += self._read()
            while len(arrived) < text.count(b'"token"'):
                arrived.append(time.perf_counter())
        assert text.startswith(b"HTTP/1.1 200") and len(arrived) == tokens, text
        return {"http": arrived[0] - start, "streamed": (arrived[-1] - arrived[0]) / (tokens - 1)}

    def whole(self, tokens: int, seed: int) -> float:
        start = self._send(tokens, seed, stream=False)
        text = self._read()
        while not text.endswith(b"}"):
            text += self._read()
        assert text.startswith(b"HTTP/1.1 200"), text
        return time.perf_counter() - start

    def _send(self, tokens: int, seed: int, *, stream: bool) -> float:
        body = json.dumps({"prompt": PROMPT, "max_new_tokens": tokens, "seed": seed, "stream": stream}).encode()
        fields = f"host: l\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        head = f"POST /generate HTTP/1.1\r\n{fields}\r\n\r\n"
        start = time.perf_counter()
        self._socket.sendall(head.encode() + body)
        return start

    def _read(self) -> bytes:
        data = self._socket.recv(2**16)
        assert data, "the replica closed the connection"
        return data


async def serve(folder: str) -> None:
    """A replica's own server, until the process ends; prints its port."""
    from types import SimpleNamespace

    from raypipe.serve.direct import Direct, start_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = SimpleNamespace(host="127.0.0.1", port=port, keep_alive_timeout_s=60)
    task, server = start_server(Direct(made(folder)), options, asyncio.get_running_loop())
    while not server.started:
        await asyncio.sleep(0.01)
    print(port, flush=True)
    await task


def made(folder: str) -> Any:
    """A replica of the GPT, in this process; the same weights each time."""
    from raypipe.spec.model import GptModel
    from raypipe.storage.local import LocalFolder
    from raypipe.testing.fakes import tiny_text
    from raypipe.testing.served import model_app, model_version

    store = LocalFolder(folder)
    dataset = tiny_text(store, TEXT, context_length=64)
    spec = GptModel(kind="gpt", dim=96, num_layers=3, num_heads=4)
    return model_app(store, model_version(store, dataset, spec=spec))


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
