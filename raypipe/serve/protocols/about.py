"""What the address of an endpoint alone tells: a page to try the model, a reference, OpenAPI, metadata.

Everything is made once, when a replica starts: a call only hands out bytes. The page to try the model is open where
keys are asked for, and empty there: its script learns what it shows from the metadata, with the key that is typed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from raypipe.serve.openapi import openapi
from raypipe.serve.page.render import docs_page, try_page
from raypipe.serve.protocols.base import Call, Protocol, Reply, Route, Served, to_json
from raypipe.serve.schemas import Schema, closed_object
from raypipe.spec.metrics import METRICS

MAX_KNOWN = 1000
"""More categories than this are not listed: no form offers them."""

FRESH = {"cache-control": "no-cache"}
"""Another version of the model may answer at the same address."""

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 1}

METADATA = closed_object(
    model=TEXT,
    version=COUNT,
    artifact=closed_object(digest=TEXT),
    created_at=TEXT,
    run=TEXT,
    dataset=TEXT,
    metrics={"type": "object", "additionalProperties": {"type": ["number", "null"]}},
    metrics_weighted_by={"type": ["string", "null"]},
    signature=closed_object(
        task={"enum": list(METRICS)},
        target={"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]},
        classes={"type": ["array", "null"]},
        threshold={"type": ["number", "null"]},
        inputs={"type": "array", "items": {"type": "object", "required": ["name", "dtype", "shape", "nullable"]}},
        extra_columns={"enum": ["ignore", "error"]},
        null_words={"type": "array", "items": TEXT},
    ),
    inputs={"type": "object", "additionalProperties": {"type": "object"}},
    limits=closed_object(rows=COUNT, body_bytes=COUNT, answer_s={"type": "number", "exclusiveMinimum": 0}),
    protocols={"type": "object", "additionalProperties": {"type": "array", "items": {"type": "object"}}},
)
"""Schema of `metadata`."""


class About(Protocol):
    """Pages and documents about the model."""

    predicts = False

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self._replies: dict[str, Reply] = {}

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/", self._hand_out, scope="open", summary="A page to try the model.", answers=("text/html",)),
            Route("GET", "/docs", self._hand_out, summary="The reference page.", answers=("text/html",)),
            Route(
                "GET",
                "/openapi.json",
                self._hand_out,
                summary="This document: OpenAPI 3.1.",
                response={"type": "object", "required": ["openapi", "info", "paths"]},
            ),
            Route(
                "GET",
                "/metadata",
                self._hand_out,
                summary="Model, version, digest, signature, scores, and what is known of the inputs.",
                response=METADATA,
            ),
        ]

    def started(self, routes: Sequence[tuple[str, Protocol, Route]]) -> None:
        """Make all documents."""
        prefix = self.served.spec.route_prefix.rstrip("/")
        document = openapi(self.model, routes, prefix, asks_for_keys=self.served.spec.auth is not None)
        self._replies = {
            "/": try_page(self.served),
            "/docs": docs_page(self.served, routes),
            "/openapi.json": Reply(to_json(document), headers=FRESH),
            "/metadata": Reply(to_json(metadata(self.served, routes)), headers=FRESH),
        }

    def _hand_out(self, call: Call) -> Reply:
        return self._replies[call.path]


def metadata(served: Served, routes: Sequence[tuple[str, Protocol, Route]]) -> dict[str, Any]:
    """What is known of the model; no place in a store, and no row of its data."""
    model, signature = served.model, served.signature
    protocols: dict[str, list[dict[str, Any]]] = {}
    for name, _, route in routes:
        protocols.setdefault(name, []).append(
            {"method": route.method, "path": route.path, "accepts": route.accepts, "summary": route.summary}
        )
    return {
        "model": model.model,
        "version": model.version,
        "artifact": {"digest": model.artifact.digest},
        "created_at": model.created_at,
        "run": model.run_id,
        "dataset": model.dataset,
        "metrics": model.metrics,
        "metrics_weighted_by": model.evaluation.weighted_by,
        "signature": {
            "task": signature.task,
            "target": signature.target,
            "classes": signature.classes,
            "threshold": None if signature.label_sets is None else signature.label_sets.threshold,
            "inputs": [column.model_dump() for column in signature.inputs],
            "extra_columns": signature.extra_columns,
            "null_words": sorted(signature.null_words),
        },
        "inputs": {column.name: _known(served, column.name) for column in signature.inputs},
        "limits": {
            "rows": served.spec.max_request_rows,
            "body_bytes": served.spec.max_body_bytes,
            "answer_s": served.spec.request_timeout_s,
        },
        "protocols": protocols,
    }


def _known(served: Served, name: str) -> dict[str, Any]:
    """Of one input: its hint, whether other categories are refused, and an example."""
    found: dict[str, Any] = {"example": None if served.example is None else served.example[name]}
    hint = served.hints.get(name)
    if hint is not None:
        found.update({key: value for key, value in dataclasses.asdict(hint).items() if value is not None})
        if len(hint.known) > MAX_KNOWN:
            found["known"] = ()
    taken = served.notes.taken.get(name)
    found["only_known"] = taken is not None and bool(taken.only)
    return found
