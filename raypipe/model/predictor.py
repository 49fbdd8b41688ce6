"""Artifact -> rows in, predictions out: the only inference path.

Evaluation, batch and serving all come through here, so the same row gets the same answer everywhere.
Shape letters: B rows, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.hints import Hint, input_hints
from raypipe.data.transforms.taken import Taken, taken_values
from raypipe.errors import RaypipeError, UserCodeError
from raypipe.model import user_code
from raypipe.model.artifact import Artifact, read_artifact
from raypipe.model.engine_choice import EngineChoice, choose_engine
from raypipe.model.engines import AnsweringNetwork, Engine
from raypipe.model.engines.eager import Eager
from raypipe.model.predictions import Predictions
from raypipe.model.probe_rows import probe_features
from raypipe.model.target import step_size, to_unit
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
        engine: which one is used, and why.

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
        is_classifier = self.signature.classes is not None
        network = AnsweringNetwork(module.to(device).eval(), is_classifier=is_classifier, device=device)
        self._eager = Eager(network, ())
        self._engine: Engine = self._eager
        self.engine = EngineChoice("eager", "as asked for")
        if engine != "eager":
            probes = probe_features(self.signature, artifact.transforms, artifact.feature_shape, self.features)
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

    def features(self, columns: Mapping[str, Any]) -> NDArray[np.float32]:
        """What the network reads for raw rows, float32 [B, *feature_shape]; see `predict`."""
        return self._transforms.apply(columns, self.signature.inputs)

    def taken_values(self) -> dict[str, Taken]:
        """What the inputs may hold, where their transforms tell."""
        return taken_values(self._transforms.state(), {c.name: c.dtype for c in self.signature.inputs})

    def input_hints(self) -> dict[str, Hint]:
        """What a form for the inputs may start from."""
        return input_hints(self._transforms.state(), self.signature.inputs)

    def answer(self, features: NDArray[np.float32]) -> Predictions:
        """Answer rows whose features are computed; see `predict`."""
        outputs = [self._call(features[i : i + MAX_CALL_ROWS]) for i in range(0, len(features), MAX_CALL_ROWS)]
        if not outputs:
            outputs = [self._call(features)]
        values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        if self.signature.classes is not None:
            return Predictions(self.signature.classes, values)
        values = to_unit(values, self._target_transform)
        return Predictions(None, values, step_size(values, self._target_transform))

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
        try:
            return self._eager(features)
        except Exception as error:  # here, as no other process sees where it was raised
            if isinstance(error, RaypipeError) or not user_code.is_raised_by(error):
                raise
            raise UserCodeError(
                f"the model failed on {len(features)} rows: {user_code.described(error)}",
                "correct the code, train with it and register the model again",
            ) from error
