"""What a client is told of an error, whichever it is: all of a refusal, and of what failed here only that it did."""

from __future__ import annotations

import logging

from raypipe.errors import DataError, NotFiniteError, RequestError, UserCodeError

logger = logging.getLogger("ray.serve")


def refusal_of(error: Exception, model: str) -> RequestError:
    """The same error for a client; the replica's log gets what this leaves out.

    Args:
        model: its name and version, for the log.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, DataError):  # e.g. a category the model has never seen
        return RequestError(error.message, error.hint)
    if isinstance(error, NotFiniteError):
        return not_finite()
    # Where the user's network raised, its words say all; a traceback a request takes longer than an answer.
    known = isinstance(error, UserCodeError)
    logger.error("a request failed in %s: %s", model, error, exc_info=None if known else error)
    return RequestError("the model failed on this request", "the replica's log has the reason", status=500)


def not_finite() -> RequestError:
    """NaN and infinity are no answers."""
    return RequestError(
        "the model's answer is not a finite number",
        "the model or this input is at fault; the same input fails in evaluation",
        status=500,
        code="not_finite",
    )
