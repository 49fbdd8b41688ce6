"""Wire protocols of an endpoint.

To add one: a file with a Protocol (its routes, their handlers, how it refuses), one line in PROTOCOLS, and
`raypipe.testing.contracts.ProtocolContract` finds it: the same rows must give the same numbers and the same errors. One
that answers no rows, but tells about the model, says so with `predicts = False`.
"""

from __future__ import annotations

from raypipe.serve.protocols.about import About
from raypipe.serve.protocols.base import Ask, Call, Later, Protocol, Reply, Route, Served
from raypipe.serve.protocols.generate import Generate
from raypipe.serve.protocols.invocations import Invocations
from raypipe.serve.protocols.oip import OpenInference
from raypipe.serve.protocols.predict import Predict
from raypipe.serve.protocols.tfserving import TensorFlowServing
from raypipe.serve.protocols.torchserve import TorchServe

__all__ = ["PROTOCOLS", "Ask", "Call", "Later", "Protocol", "Reply", "Route", "Served"]

PROTOCOLS: dict[str, type[Protocol]] = {
    "predict": Predict,
    "tfserving": TensorFlowServing,
    "oip": OpenInference,
    "invocations": Invocations,
    "torchserve": TorchServe,
    "generate": Generate,
    "about": About,
}
"""The first one's words are for paths that belong to none."""
