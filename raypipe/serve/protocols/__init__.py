"""Wire protocols of an endpoint.

To add one: a file with a Protocol (paths, parse, render), one line in PROTOCOLS, and
`raypipe.testing.contracts.ProtocolContract` finds it: the same rows must give the same numbers and the same errors.
"""

from __future__ import annotations

from raypipe.serve.protocols.base import Protocol
from raypipe.serve.protocols.predict import Predict
from raypipe.serve.protocols.tfserving import TensorFlowServing

PROTOCOLS: dict[str, type[Protocol]] = {"predict": Predict, "tfserving": TensorFlowServing}
