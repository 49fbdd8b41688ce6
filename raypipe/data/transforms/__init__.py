"""Transforms: fitted on train, applied anywhere; the fitted state is plain JSON and travels inside the artifact.

To add a kind: a variant in spec/transforms.py (of texts: spec/text_transforms.py), a `TransformKind` (base.py) in the
file of its family, a line in table.py, and an example in `raypipe.testing.contracts.TransformContract`, which says what
must hold.  passes.py says which are fitted together, fitting.py drives the passes over train; fitted.py applies the
outcome to training shards, batch rows and requests alike.
"""

from raypipe.data.transforms.base import State
from raypipe.data.transforms.fitted import FittedTransforms
from raypipe.data.transforms.table import KINDS

__all__ = ["KINDS", "FittedTransforms", "State"]
