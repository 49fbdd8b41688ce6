"""Ways to call a network.  To add one: a file here with a subclass of Engine, a line in ENGINES, and where people may
choose it a word in spec/serve.py; the engine contract finds it by itself."""

from __future__ import annotations

from raypipe.model.engines.base import AnsweringNetwork, Engine, Features
from raypipe.model.engines.compiled import Compiled
from raypipe.model.engines.eager import Eager
from raypipe.model.engines.graphs import Graphs
from raypipe.model.engines.onnx import Onnx
from raypipe.model.engines.traced import Traced

__all__ = ["ENGINES", "AnsweringNetwork", "Engine", "Features"]

ENGINES: dict[str, type[Engine]] = {
    "eager": Eager,
    "traced": Traced,
    "compile": Compiled,
    "onnx": Onnx,
    "graphs": Graphs,
}
