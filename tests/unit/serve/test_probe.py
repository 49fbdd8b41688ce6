"""The first question to a new endpoint, while replicas of the version before it still answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from raypipe.errors import ServeError
from raypipe.model.predictions import Predictions
from raypipe.records import Endpoint
from raypipe.serve.probe import probe, wait_reachable
from raypipe.spec.serve import ServeSpec

SPEC = ServeSpec()
ROWS = [{"x": 1.0}]
EXPECTED = Predictions(None, np.array([2.0], np.float32))

Answer = tuple[int, str | None, dict[str, Any]]

OLD: Answer = (200, "m@1", {"predictions": [1.0]})
NEW: Answer = (200, "m@2", {"predictions": [2.0]})
NOBODY: Answer = (503, None, {})


@contextmanager
def served(*answers: Answer | None) -> Iterator[Endpoint]:
    """An endpoint that gives these answers in turn, and the last one from then on; None breaks off."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer is None:
                self.close_connection = True
                return
            status, model, document = answer
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if model is not None:
                self.send_header("x-raypipe-model", model)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        yield Endpoint(name="m", url=url, model="m", version=2, min_replicas=1, max_replicas=1, ingress="python")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_s(seconds: float) -> float:
    return time.monotonic() + seconds


def test_probe_during_a_swap_asks_again_until_the_new_version_answers():
    with served(OLD, NOBODY, None, OLD, NEW) as endpoint:
        told = probe(endpoint, ROWS, EXPECTED, SPEC, in_s(30))
    assert told == {"request": {"instances": ROWS}, "answer": {"predictions": [2.0]}}


def test_probe_that_only_the_old_version_answers_says_who_did():
    with served(OLD) as endpoint, pytest.raises(ServeError, match=r"m@2 is up, but .*HTTP 200 from m@1"):
        probe(endpoint, ROWS, EXPECTED, SPEC, in_s(0.2))


def test_probe_that_the_new_version_refuses_is_an_error_at_once():
    refusal: Answer = (408, "m@2", {"error": {"message": "the model did not answer"}})
    with served(refusal) as endpoint, pytest.raises(ServeError, match=r"HTTP 408: .*did not answer"):
        probe(endpoint, ROWS, EXPECTED, SPEC, in_s(30))


def test_probe_whose_numbers_differ_is_an_error():
    wrong: Answer = (200, "m@2", {"predictions": [2.5]})
    with served(wrong) as endpoint, pytest.raises(ServeError, match=r"largest difference 0\.5"):
        probe(endpoint, ROWS, EXPECTED, SPEC, in_s(30))


def test_probe_of_a_target_in_a_large_unit_allows_what_rounding_makes_of_a_number_near_0():
    millions = Predictions(None, np.array([0.25, 3e6]), step_size=1e6)
    rounded: Answer = (200, "m@2", {"predictions": [0.75, 3e6]})
    wrong: Answer = (200, "m@2", {"predictions": [9.0, 3e6]})
    with served(rounded) as endpoint:
        probe(endpoint, ROWS, millions, SPEC, in_s(30))
    with served(wrong) as endpoint, pytest.raises(ServeError, match=r"largest difference 8\.75"):
        probe(endpoint, ROWS, millions, SPEC, in_s(30))


def test_health_route_is_asked_until_the_new_version_answers_or_time_is_over():
    with served(NOBODY, OLD, NEW) as endpoint:
        wait_reachable(endpoint, in_s(30))
    with served(OLD) as endpoint, pytest.raises(ServeError, match=r"/healthz does not reach it \(HTTP 200 from m@1\)"):
        wait_reachable(endpoint, in_s(0.2))
