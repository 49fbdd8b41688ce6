"""The user's own network: a function that returns an `nn.Module`, or a Keras 3 model on the torch backend."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from raypipe.errors import ModelError
from raypipe.model import own_code, user_code
from raypipe.model.features import Features
from raypipe.spec.model import ImportModel


def build(spec: ImportModel, features: Features, num_outputs: int) -> nn.Module:
    """Call the function of the module that runs; it may name `input_shape` and `num_outputs`, which come from the data.

    First weights follow torch's seed, also where the function draws them from Python's or numpy's generator.

    Raises:
        ModelError: there is no such function, or it returns no network.
    """
    function = getattr(own_code.running(spec.path), spec.path.partition(":")[2], None)
    if not callable(function):
        raise ModelError(f"model.path: {spec.path} names no function of that module")
    offered = {"input_shape": features.shape, "num_outputs": num_outputs}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:  # a class that takes over how a type of Python's own is called
        raise ModelError(
            f"model.path: {spec.path} does not tell its parameters: {error}", "name a function that returns the network"
        ) from None
    arguments = {**{k: v for k, v in offered.items() if k in signature.parameters}, **spec.args}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ModelError(
            f"model.path: {spec.path} cannot be called with {sorted(arguments)}: {error}",
            "fit model.args to the function's parameters",
        ) from None
    try:
        with _one_seed():
            module: Any = function(**arguments)
            if _is_keras(module):
                module = KerasModule(module, features.shape)
    except Exception as error:  # the user's function may raise anything
        raise ModelError(
            f"model.path: {spec.path} failed with {sorted(arguments)}: {user_code.described_if_own(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"model.path: {spec.path} returned {type(module).__name__}; it must return a torch.nn.Module")
    _refuse_keras_inside(module, spec.path)
    return module


class KerasModule(nn.Module):
    """A Keras 3 model that behaves as our loop and Predictor expect of any module.

    By itself Keras ignores `train()` and `eval()` (a call says whether it trains, so dropout would never be on),
    numbers its layers per process (weights saved in one would not load in the next), and takes whatever GPU it finds.

    Args:
        model: a `keras.Layer` or `keras.Model`; built here if it is not yet.
        input_shape: shape of one row.
    """

    model: Any

    def __init__(self, model: Any, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)  # no submodule: its weights are registered once, under names of ours
        if not model.built:
            self.eval()(torch.zeros(2, *input_shape))
        for index, variable in enumerate(model.variables):  # in an order that the model's code alone decides
            name = f"{index:03d}_{variable.name.replace('.', '_')}"
            if variable.trainable:
                self.register_parameter(name, variable.value)
            else:  # running averages and seeds: state that is kept, and that ranks share
                self.register_buffer(name, variable.value)
        self.to("cpu").train()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for buffer in self.buffers():
            buffer.data = fn(buffer.data)  # in place, as torch itself does for parameters: Keras holds these tensors
        return super()._apply(fn, recurse)

    def forward(self, features: Tensor) -> Tensor:
        with sys.modules["keras"].device(str(features.device)):
            return self.model(features, training=self.training)


def _is_keras(module: Any) -> bool:
    keras = sys.modules.get("keras")  # whoever made a Keras layer has imported it; others need not have it
    return keras is not None and isinstance(module, keras.Layer) and isinstance(module, nn.Module)


def _refuse_keras_inside(module: nn.Module, path: str) -> None:
    found = next((m for m in module.modules() if _is_keras(m)), None)
    if found is not None:
        raise ModelError(
            f"model.path: {path} returned a torch module with a Keras layer inside ({type(found).__name__}); "
            "its dropout would stay off in training",
            "return a Keras model, or use torch layers throughout",
        )


@contextmanager
def _one_seed() -> Iterator[None]:
    """Python's and numpy's generators follow torch's seed inside: Keras draws its initializers' seeds from Python's."""
    before = random.getstate(), np.random.get_state()
    random.seed(torch.initial_seed())
    np.random.seed(torch.initial_seed() % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
