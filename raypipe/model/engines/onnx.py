"""ONNX Runtime: the network exported as an ONNX graph, in memory, and run by Microsoft's engine.

The extra `raypipe[onnx]` has what it needs. Exporting takes seconds at each start.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raypipe.errors import ServeError
from raypipe.model.engines.base import AnsweringNetwork, Answers, Engine, Features, on_device
from raypipe.model.engines.compiled import first_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Onnx(Engine):
    """Runs the exported graph.

    Raises:
        ServeError: the extra is not installed, the network cannot be exported, or the runtime has no GPU.
    """

    def __init__(self, network: AnsweringNetwork, samples: Sequence[Features]) -> None:
        super().__init__(network, samples)
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ServeError(
                f"serve.engine: onnx needs {', '.join(missing)} where replicas run, which is not installed there",
                "pip install 'raypipe[onnx]', or set serve.engine: auto",
            )
        import onnxruntime

        providers = [CPU]
        if network.device != "cpu":
            if CUDA not in onnxruntime.get_available_providers():
                raise ServeError(
                    "serve.engine: onnx would answer on the CPU: the installed ONNX Runtime has no CUDA, but "
                    "serve.resources.num_gpus asks for a GPU",
                    "install onnxruntime-gpu instead of onnxruntime, or set serve.engine: auto",
                )
            providers = [CUDA, CPU]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other replicas share the cores
        self._session: Any = onnxruntime.InferenceSession(_exported(network, samples[0]), options, providers=providers)
        for features in samples:
            self(features)

    def __call__(self, features: Features) -> Answers:
        return self._session.run(["answers"], {"features": np.ascontiguousarray(features)})[0]


def _exported(network: AnsweringNetwork, sample: Features) -> bytes:
    """The graph with its weights, for any number of rows."""
    rows = {0: torch.export.Dim("rows", min=1)}
    talkative = logging.getLogger("torch.onnx")
    level = talkative.level
    talkative.setLevel(logging.ERROR)  # it tells which packages of operators it did without
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (on_device(sample.copy(), network.device),),
                input_names=["features"],
                output_names=["answers"],
                dynamic_shapes=(rows,),
                dynamo=True,
                verbose=False,
            )
        return program.model_proto.SerializeToString()
    except Exception as error:
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ServeError(
            f"serve.engine: onnx cannot export this network: {first_line(reason)}", "set serve.engine: auto"
        ) from error
    finally:
        talkative.setLevel(level)
