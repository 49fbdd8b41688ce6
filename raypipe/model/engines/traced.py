"""The operations of one call, written down by torch and repeated without Python: torch.jit.trace and freeze.

What the network decides in Python while it is traced stays decided, so the answers have to be compared with eager's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from raypipe.model.engines.base import AnsweringNetwork, Answers, Engine, Features, in_memory, on_device

MAX_NOTE_CHARS = 160

KERAS_ON_SHAPES = r"keras\.src\.(ops\.operation_utils|backend\.common\.variables)$"
"""Where Keras looks at shapes, and at no values: what that decides shows at another number of rows. Elsewhere in Keras
a warning counts, for its own `cond` asks for values."""


class Traced(Engine):
    """About a third less time than eager for a small network, where Python between the operations is what takes it."""

    def __init__(self, network: AnsweringNetwork, samples: Sequence[Features]) -> None:
        super().__init__(network, samples)
        with warnings.catch_warnings(record=True) as raised:  # torch also says that it would rather compile
            warnings.simplefilter("always")
            TracerWarning.ignore_lib_warnings()  # torch's own layers know what they do
            warnings.filterwarnings("ignore", category=TracerWarning, module=KERAS_ON_SHAPES)
            with torch.no_grad():
                traced: Any = torch.jit.trace(network, on_device(samples[0].copy(), network.device), check_trace=False)
                self._program: Any = torch.jit.freeze(traced)
            # Its method itself, and no inference_mode: weights are constants without a gradient by now; 4 of 23 us.
            self._forward: Any = self._program.forward
            with _planned_at_once():
                self(samples[0].copy())
        found = (w for w in raised if issubclass(w.category, TracerWarning))
        self.notes = tuple(dict.fromkeys(_first_sentence(w) for w in found))

    def __call__(self, features: Features) -> Answers:
        return in_memory(self._forward(on_device(features, self.network.device)))


@contextmanager
def _planned_at_once() -> Iterator[None]:
    """Inside, the first call of a program makes its final plan.

    Otherwise torch watches the first call (35 ms for two layers, instead of 4) and plans anew at the second; what it
    would learn is of use to fused operations, which torch has on GPUs alone. A program keeps its plan, so that the
    setting of the process is as it was afterwards.
    """
    before = torch.jit.set_fusion_strategy([("STATIC", 0), ("DYNAMIC", 0)])
    try:
        yield
    finally:
        torch.jit.set_fusion_strategy(before)


def _first_sentence(warning: warnings.WarningMessage) -> str:
    text = " ".join(str(warning.message).split())
    sentence = text.split(". ", 1)[0]
    where = f"{warning.filename.rpartition('/')[2]} line {warning.lineno}"
    return f"{where}: {sentence[:MAX_NOTE_CHARS]}"
