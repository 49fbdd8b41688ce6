"""Architectures.  To add one: a file here with `build(spec, features, num_outputs)`, a variant in spec/model.py,
a line in ZOO; the model contract finds it by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from raypipe.model.features import Features
from raypipe.model.zoo import audio_cnn, cnn, encoder_decoder, gpt, imported, linear, mlp, resnet, transformer

Builder = Callable[[Any, Features, int], nn.Module]
"""(spec, what one row holds, number of outputs) -> module reading float32 [B, *features.shape], giving [B, outputs].

Blocks that repeat lie in a ModuleList `blocks`, so that each can be compiled, recomputed and sharded by itself."""

ZOO: dict[str, Builder] = {
    "linear": linear.build,
    "mlp": mlp.build,
    "cnn": cnn.build,
    "resnet": resnet.build,
    "audio_cnn": audio_cnn.build,
    "transformer": transformer.build,
    "gpt": gpt.build,
    "encoder_decoder": encoder_decoder.build,
    "import": imported.build,
}
