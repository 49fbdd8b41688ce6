"""HTTP statuses of refusals, and the words that programs look at; of replicas and of HAProxy in front of them."""

from __future__ import annotations

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "unprocessable",
    429: "too_many_requests",
    431: "header_too_large",
    500: "internal",
    503: "overloaded",
    504: "timeout",
}
"""HTTP status -> the word programs look at."""
