"""Which network; its input shape and output width come from the data."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from raypipe.spec.base import Spec

Activation = Literal["relu", "gelu", "silu", "tanh"]


class LinearModel(Spec):
    """One affine layer on the flattened features: logistic or linear regression."""

    kind: Literal["linear"]


class MlpModel(Spec):
    """Fully connected layers with dropout between them; inputs are flattened."""

    kind: Literal["mlp"]
    hidden: list[Annotated[int, Field(ge=1, le=65536)]] = Field([128], min_length=1, max_length=64)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """Function after each hidden layer."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden units zeroed while training."""


class CnnModel(Spec):
    """Small convolutional network for images [H, W] or [C, H, W]: conv-norm-activation-pool blocks, a linear head."""

    kind: Literal["cnn"]
    channels: list[Annotated[int, Field(ge=1, le=4096)]] = Field([16, 32], min_length=1, max_length=8)
    """Output channels of each block; every block halves height and width."""
    activation: Activation = "relu"
    """Function after each normalization."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of head inputs zeroed while training."""


IMPORT_PATTERN = r"^((\./)?[\w-]+(/[\w-]+)*\.py|[\w-]+(\.[\w-]+)*):[A-Za-z_]\w*$"

MAX_PATH_CHARS = 500


def _check_path(path: str) -> str:
    if len(path) <= MAX_PATH_CHARS and re.fullmatch(IMPORT_PATTERN, path):
        return path
    raise ValueError(
        f"found {path[:80]!r}; must be model.py:build or nets/model.py:build, from the pipeline file's folder "
        "(which is what workers and replicas get, so no '..' and no absolute path), or package.module:build; "
        "move the module into that folder"
    )


class ImportModel(Spec):
    """Your own network: a function that returns an `nn.Module`."""

    kind: Literal["import"]
    path: Annotated[str, AfterValidator(_check_path), WithJsonSchema({"type": "string", "pattern": IMPORT_PATTERN})]
    """`model.py:build` (in the pipeline file's folder or below) or `package.module:build`."""
    args: dict[str, Any] = {}
    """Keyword arguments for the function. It also receives `input_shape` (without the rows) and `num_outputs`
    where its signature names them."""


Model = Annotated[LinearModel | MlpModel | CnnModel | ImportModel, Field(discriminator="kind")]
