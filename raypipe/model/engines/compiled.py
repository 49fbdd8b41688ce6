"""torch.compile: code generated for this network and this machine, for any number of rows.

Made for networks whose layers are many and small or can be fused; the first start takes half a minute and more, later
ones find the code in torch's cache.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from raypipe.errors import ServeError
from raypipe.model.engines.base import AnsweringNetwork, Answers, Engine, Features, in_memory, on_device

COMPILERS = ("g++", "clang++")


class Compiled(Engine):
    """Calls what torch.compile made of the network.

    Raises:
        ServeError: there is no C++ compiler, or the network cannot be compiled.
    """

    def __init__(self, network: AnsweringNetwork, samples: Sequence[Features]) -> None:
        super().__init__(network, samples)
        if network.device == "cpu" and not has_compiler():
            raise ServeError(
                f"serve.engine: compile needs a C++ compiler where replicas run, and none of {', '.join(COMPILERS)} is "
                "on PATH there (nor named by CXX)",
                "install one (Debian: apt-get install g++), or set serve.engine: auto",
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own insides while it compiles
                self._program: Any = torch.compile(network, dynamic=True)
                for features in samples:
                    self(features.copy())
        except Exception as error:
            raise ServeError(
                f"serve.engine: compile cannot compile this network: {first_line(error)}", "set serve.engine: auto"
            ) from error

    @torch.inference_mode()
    def __call__(self, features: Features) -> Answers:
        return in_memory(self._program(on_device(features, self.network.device)))


def first_line(error: Exception) -> str:
    """Type and first line of an exception: torch writes pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler here."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named, *COMPILERS) if named else COMPILERS))
