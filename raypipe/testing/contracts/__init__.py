"""What every entry of a table must hold: a new format, transform, store, protocol, model, engine or search passes its
own.

A contract imports its room only when it runs, so that whoever tests a store needs neither ray nor torch.
"""

from raypipe.testing.contracts.engines import EngineContract
from raypipe.testing.contracts.formats import FormatContract
from raypipe.testing.contracts.models import ModelContract
from raypipe.testing.contracts.protocols import ProtocolContract
from raypipe.testing.contracts.searches import SearchContract
from raypipe.testing.contracts.stores import StoreContract
from raypipe.testing.contracts.transforms import TRANSFORM_COLUMNS, TransformContract

__all__ = [
    "TRANSFORM_COLUMNS",
    "EngineContract",
    "FormatContract",
    "ModelContract",
    "ProtocolContract",
    "SearchContract",
    "StoreContract",
    "TransformContract",
]
