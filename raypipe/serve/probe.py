"""Ask an endpoint what a user would ask it, and compare with a Predictor apart from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from raypipe.errors import RaypipeError, ServeError
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import Task
from raypipe.records import ArtifactRef, Endpoint
from raypipe.serve.certificate import trusting
from raypipe.serve.checker import columns_of
from raypipe.serve.keys import Keys, own_key
from raypipe.spec.access import AuthSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store

POLL_S = 0.05

HEALTH_TIMEOUT_S = 1.0
"""Given to the last question about health, however near the deadline is."""

TOLERANCE = 1e-6
"""Relative, and of what the network answers absolute; batches of another size add numbers in another order."""

OTHER_VERSIONS = "nodes of the cluster have other versions of raypipe, torch or the model's code"

GPU_TOLERANCE = 1e-3
"""Where replicas compute on a GPU and the other Predictor on a CPU."""


def expected_answers(
    store_uri: str,
    ref: ArtifactRef,
    code_dir: Path | None,
    rows: list[dict[str, Any]] | None,
    max_rows: int,
    auth: AuthSpec | None,
) -> Predictions | RaypipeError | None:
    """Runs in a Ray worker: what the endpoint must answer to some rows.

    An error that another try would meet again is an answer, so that it keeps its words: the artifact is damaged, or the
    rows do not fit the model.

    Args:
        auth: whose keys must be readable here as they are for replicas; None: they need not be.
    """
    from raypipe.model.predictor import Predictor

    try:
        if auth is not None:
            Keys.load(auth)
        predictor = Predictor.load(open_store(store_uri), ref, code_dir=code_dir)
        return predictor.predict(columns_of(rows, predictor.signature, max_rows=max_rows)) if rows else None
    except RaypipeError as error:
        if error.transient:
            raise
        return error


def wait_reachable(endpoint: Endpoint, deadline: float) -> None:
    """Poll the health route until this version answers through the ingress.

    Args:
        deadline: time.monotonic() value.
    Raises:
        ServeError: it did not in time.
    """
    answer = _ask(endpoint, httpx.Request("GET", f"{endpoint.url}/healthz"), deadline, HEALTH_TIMEOUT_S)
    if answer.status_code != 200:
        raise ServeError(f"{endpoint.url}/healthz answers HTTP {answer.status_code}: {answer.text[:300]}")


def probe(
    endpoint: Endpoint,
    rows: list[dict[str, Any]],
    expected: Predictions,
    spec: ServeSpec,
    deadline: float,
    *,
    details: Sequence[str] = ("probabilities",),
    writes: Task | None = None,
) -> dict[str, Any]:
    """Send rows to /predict.

    Args:
        deadline: time.monotonic() value; the last request may take its own time limit beyond it.
        details: where an answer is an object, what of it makes up the values of `expected`; none: all of it.
        writes: the model's task, where its answers are texts; they must be the same.
    Returns:
        The request and its answer.
    Raises:
        ServeError: this version does not answer, answers with an error, or its numbers differ from `expected`.
    """
    url = f"{endpoint.url}/predict"
    request = {"instances": rows}
    headers = {} if spec.auth is None else {"authorization": f"Bearer {own_key()}"}
    answer = _ask(
        endpoint, httpx.Request("POST", url, json=request, headers=headers), deadline, spec.request_timeout_s + 5
    )
    if answer.status_code != 200:
        raise ServeError(f"{url} answered the first request with HTTP {answer.status_code}: {answer.text[:300]}")
    predictions, values = answer.json()["predictions"], expected.values
    if writes is not None:
        written, details = writes.answers(values), [column.name for column in writes.columns_of("confidence")]
        for column in writes.columns_of("answer"):
            _compare_texts(url, written[column.name], [row[column.name] for row in predictions])
        values = np.stack([written[name] for name in details], axis=1)
    found = _numbers(predictions, details)
    tolerance = GPU_TOLERANCE if spec.resources.num_gpus else TOLERANCE
    smallest = tolerance * expected.step_size
    if found.shape != values.shape or not np.allclose(found, values, rtol=tolerance, atol=smallest):
        gap = float(np.abs(found - values).max()) if found.shape == values.shape else float("inf")
        raise ServeError(
            f"{url} answers differently from the model elsewhere (largest difference {gap:.3g}, allowed {tolerance:g} "
            f"of a value plus {smallest:.3g})",
            OTHER_VERSIONS,
        )
    return {"request": request, "answer": answer.json()}


def _compare_texts(url: str, expected: Sequence[str], found: Sequence[str]) -> None:
    for one, other in zip(expected, found, strict=True):
        if one != other:
            raise ServeError(
                f"{url} answers {other[:80]!r} where the model elsewhere answers {one[:80]!r}", OTHER_VERSIONS
            )


def _ask(endpoint: Endpoint, request: httpx.Request, deadline: float, timeout_s: float) -> httpx.Response:
    """The first answer of this version: in a swap, replicas of the version before may still answer, or break off."""
    version = f"{endpoint.model}@{endpoint.version}"
    with ExitStack() as clients:
        client = clients.enter_context(_client(endpoint))
        while True:
            request.extensions["timeout"] = httpx.Timeout(max(timeout_s, deadline - time.monotonic())).as_dict()
            try:
                answer = client.send(request)
                if answer.headers.get("x-raypipe-model") == version:
                    return answer
                seen = f"HTTP {answer.status_code} from {answer.headers.get('x-raypipe-model', 'another program')}"
            except httpx.TransportError as error:
                seen = type(error).__name__
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    seen = f"what answers there has another certificate than {endpoint.cert_file}, or it is not valid"
                    client = clients.enter_context(_client(endpoint))  # the file may have changed
            if time.monotonic() > deadline:
                raise ServeError(
                    f"{version} is up, but {request.url} does not reach it ({seen})",
                    "check that serve.host is an address of this machine and that no proxy is in between",
                )
            time.sleep(POLL_S)  # the proxy tells nobody when it knows a route


def _client(endpoint: Endpoint) -> httpx.Client:
    """Trusts the endpoint's own certificate, and no other."""
    verify = trusting(endpoint.cert_file) if endpoint.cert_file is not None else True
    return httpx.Client(trust_env=False, verify=verify)


def _numbers(predictions: list[Any], details: Sequence[str]) -> NDArray[np.float64]:
    if predictions and isinstance(predictions[0], dict):
        told = [[row[name] for name in details] if details else list(row.values()) for row in predictions]
        return np.array([np.hstack(row) for row in told], dtype=np.float64)
    return np.array(predictions, dtype=np.float64)
