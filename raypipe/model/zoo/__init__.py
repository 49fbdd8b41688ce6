"""Architectures.  To add one: a file here with `build(spec, input_shape, num_outputs)`, a variant in spec/model.py,
a line in ZOO; the model contract finds it by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from raypipe.model.zoo import cnn, imported, linear, mlp

Builder = Callable[[Any, tuple[int, ...], int], nn.Module]
"""(spec, shape of one row, number of outputs) -> module reading float32 [B, *shape], giving [B, outputs]."""

ZOO: dict[str, Builder] = {
    "linear": linear.build,
    "mlp": mlp.build,
    "cnn": cnn.build,
    "import": imported.build,
}
