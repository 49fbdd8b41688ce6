"""Artifact -> rows in, predictions out: the only inference path.

Evaluation, batch and serving all come through here, so the same row gets the same answer everywhere.
Shape letters: B rows, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raypipe.data.transforms import FittedTransforms, State
from raypipe.data.transforms.hints import Hint, input_hints
from raypipe.data.transforms.taken import Taken, taken_values
from raypipe.errors import RaypipeError, UserCodeError
from raypipe.model import user_code
from raypipe.model.artifact import Artifact, read_artifact
from raypipe.model.engine_choice import EngineChoice, choose_engine, refuse_engine
from raypipe.model.engines import AnsweringNetwork, Engine
from raypipe.model.engines.base import on_device
from raypipe.model.engines.eager import Eager
from raypipe.model.predictions import Predictions
from raypipe.model.probe_rows import probe_features
from raypipe.model.target import step_size, to_unit
from raypipe.model.tasks import task_of
from raypipe.records import ArtifactRef, Signature
from raypipe.spec.serve import EngineName
from raypipe.storage import Store

MAX_CALL_ROWS = 8192
"""Rows of one model call; more are cut, so that memory stays bounded."""

logger = logging.getLogger("ray.serve")


class Predictor:
    """A model ready to answer.

    Args:
        artifact: its description.
        module: reads float32 [B, *feature_shape].
        engine: how the network is called; see ServeSpec.engine. Other than eager it is compared with eager here.

    Attributes:
        task: what its answers mean.
        engine: which one is used, and why.
        writer: writes texts token by token, where its answers are some, or it is a language model.

    Raises:
        ServeError: an engine named here cannot be made, or answers differently from eager.
    """

    def __init__(
        self,
        ref: ArtifactRef,
        artifact: Artifact,
        module: nn.Module,
        device: str = "cpu",
        engine: EngineName = "eager",
    ) -> None:
        self.ref = ref
        self.signature: Signature = artifact.signature
        self._target_transform = artifact.target_transform
        self._transforms = FittedTransforms.from_state(artifact.transforms)
        self.task = task_of(self.signature)
        network = AnsweringNetwork(self.task.asked(module).to(device).eval(), self.task.read_output, device=device)
        self._module = module.to(device).eval()
        self.writer = self.task.writer(self._module, self.features, device)
        self._eager = Eager(network, ())
        self._engine: Engine = self._eager
        self.engine = EngineChoice("eager", "as asked for")
        if not self.task.is_one_call:
            refuse_engine(engine)
        elif engine != "eager":
            probes = probe_features(self.signature, artifact.transforms, self.feature_shape, self.features)
            chosen, self.engine = choose_engine(engine, network, probes)
            self._engine = self._eager if isinstance(chosen, Eager) else chosen

    @classmethod
    def load(
        cls,
        store: Store,
        ref: ArtifactRef,
        *,
        code_dir: Path | None = None,
        device: str = "cpu",
        engine: EngineName = "eager",
    ) -> Predictor:
        """Read and check an artifact.

        Raises:
            DigestMismatch, ArtifactError, ModelError: it is damaged, or its code is not here.
            ServeError: see the class.
        """
        artifact, module = read_artifact(store, ref, code_dir=code_dir)
        return cls(ref, artifact, module, device, engine)

    @property
    def answer_dtype(self) -> str:
        """Of `Predictions.values`: float64 where the target was transformed for the training, else float32."""
        return "float32" if self._target_transform.kind == "none" else "float64"

    def predict(self, columns: Mapping[str, Any]) -> Predictions:
        """Answer raw rows.

        Args:
            columns: each input of the signature: [B, *shape]; text as object arrays, missing values NaN or None, or in
                Arrow.
        Raises:
            DataError: a value the model cannot take.
            UserCodeError: the user's network raised.
        """
        return self.answer(self.features(columns))

    def judge(self, columns: Mapping[str, Any], target: NDArray[Any]) -> Predictions:
        """`predict`, and in the values what the task's metrics need beyond it, as the truth is known here.

        Args:
            target: of the rows, as `encode_target` gives it.
        """
        features = self.features(columns)
        told = self.answer(features)
        most = self._most_rows
        parts = [
            self._judged(features[i : i + most], target[i : i + most], told.values[i : i + most])
            for i in range(0, max(1, len(features)), most)
        ]
        return replace(told, values=parts[0] if len(parts) == 1 else np.concatenate(parts))

    @torch.inference_mode()
    def _judged(
        self, features: NDArray[np.float32], target: NDArray[Any], values: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        on = on_device(features, str(self._eager.network.device))
        return self._told(lambda: self.task.judged(self._module, on, target, values), len(features))

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Of one row of `features`."""
        return self._transforms.feature_shape(self.signature.inputs)

    def features(self, columns: Mapping[str, Any]) -> NDArray[np.float32]:
        """Raw rows after the transforms, float32 [B, ...]; see `predict`."""
        return self._transforms.apply(columns, self.signature.inputs)

    def transforms(self) -> tuple[State, ...]:
        """What computes `features`, for FittedTransforms.from_state elsewhere."""
        return self._transforms.state()

    def taken_values(self) -> dict[str, Taken]:
        """What the inputs may hold, where their transforms tell."""
        return taken_values(self._transforms.state(), {c.name: c.dtype for c in self.signature.inputs})

    def input_hints(self) -> dict[str, Hint]:
        """What a form for the inputs may start from."""
        return input_hints(self._transforms.state(), self.signature.inputs)

    def answer(self, features: NDArray[np.float32]) -> Predictions:
        """Answer rows whose features are computed; see `predict`."""
        most = self._most_rows
        outputs = [self._call(features[i : i + most]) for i in range(0, len(features), most)]
        if not outputs:
            outputs = [self._call(features)]
        values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        values = to_unit(values, self._target_transform)
        return Predictions(self.signature.classes, values, step_size(values, self._target_transform))

    @property
    def _most_rows(self) -> int:
        """Of one call."""
        return max(1, MAX_CALL_ROWS // self.task.num_places)

    def _call(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._engine is self._eager or not len(features):
            return self._ask_eager(features)
        try:
            return self._engine(features)
        except Exception as error:
            failure = error
        answers = self._ask_eager(features)  # a row that the network itself refuses is not the engine's fault
        logger.error("the engine %s failed where eager answers", self.engine.name, exc_info=failure)
        return answers

    def _ask_eager(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._told(lambda: self._eager(features), len(features))

    def _told(self, call: Callable[[], NDArray[Any]], num_rows: int) -> NDArray[Any]:
        try:
            return call()
        except Exception as error:  # here, as no other process sees where it was raised
            if isinstance(error, RaypipeError) or not user_code.is_raised_by(error):
                raise
            raise UserCodeError(
                f"the model failed on {num_rows} rows: {user_code.described(error)}",
                "correct the code, train with it and register the model again",
            ) from error
