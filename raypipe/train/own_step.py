"""The user's own way from rows to a loss, `train.step: module:function`, with what it must keep to."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NoReturn, Protocol

from torch import Tensor, nn

from raypipe.errors import ModelError, UserCodeError
from raypipe.model import own_code
from raypipe.model.losses import Loss
from raypipe.spec.code import module_name
from raypipe.spec.model import ImportModel, Model
from raypipe.train.rows import Rows

PARAMETERS = ("network", "features", "target", "loss")


class TrainingStep(Protocol):
    """What `train.step` names: runs the network in training, and tells how wrong it is.

    Called once a micro batch, with gradients on. It may call the network several times, mix rows, or add terms to the
    loss; it must not call `backward` or an optimizer, as gradients are averaged, clipped and applied afterwards.
    Validation, evaluation and serving never call it. B rows.

    Args:
        network: in training mode; call it, and no method of it.
        features: float32 [B, *shape].
        target: int64 [B] class indices, or float32 [B].
        loss: the file's `train.loss`: loss(output, target) is [B], with `reduction="mean"` their mean.
    Returns:
        The mean loss over the rows, one floating-point number with a gradient; or one of each row, [B], as it must be
        where rows count differently (data.weight).
    """

    def __call__(self, network: nn.Module, features: Tensor, target: Tensor, loss: Loss, /) -> Tensor: ...


class OwnStep:
    """A user's step, every answer of which is checked.

    Args:
        path: as the file has it, for messages.
    """

    def __init__(self, path: str, function: TrainingStep) -> None:
        self._path, self._function = path, function

    def __call__(self, network: nn.Module, rows: Rows, loss: Loss) -> Tensor:
        """The mean loss over some rows.

        Raises:
            UserCodeError: the function answers none.
        """
        found: Any = self._function(network, rows.features, rows.target, loss)
        num_rows = len(rows.target)
        if rows.weight is not None and isinstance(found, Tensor) and not found.dim():
            raise UserCodeError(
                f"train.step: {self._path} answered one number for {num_rows} rows, but rows count differently "
                f"(data.weight): it must return the loss of each, [{num_rows}]",
                "return loss(network(features), target) without a mean; rows are weighted afterwards",
            )
        if not isinstance(found, Tensor):
            self._refuse(f"a {type(found).__name__}" if found is not None else "nothing", num_rows)
        if found.dim() and list(found.shape) != [num_rows]:
            self._refuse(f"a tensor of shape {list(found.shape)}", num_rows)
        if not found.is_floating_point() or not found.requires_grad:
            kind = str(found.dtype).removeprefix("torch.")
            self._refuse(f"{kind} without a gradient" if not found.requires_grad else kind, num_rows)
        return found.float().mean() if rows.weight is None else (found.float() * rows.weight).mean()

    def _refuse(self, answer: str, num_rows: int) -> NoReturn:
        raise UserCodeError(
            f"train.step: {self._path} answered {answer} for {num_rows} rows; it must return their mean loss, one "
            f"floating-point number with a gradient, or the loss of each, [{num_rows}]",
            "return loss(network(features), target) or what you make of it: no .item(), detach or numpy on the way",
        )


def load_step(path: str, model: Model, code_dir: Path | None) -> OwnStep:
    """The function that `train.step` names.

    Args:
        model: where its own function lies in the same module, that one must run already.
    Raises:
        ModelError: it is not there, may not be named, or does not take what a step is given.
    """
    try:
        own = own_code.read_module(path, code_dir)
        module = own_code.running(path) if shares_module(path, model) else own_code.run_module(own)
    except ModelError as error:
        raise ModelError(error.message.replace("model.path", "train.step"), error.hint) from None
    function: Any = getattr(module, path.partition(":")[2], None)
    try:
        inspect.signature(function).bind(*PARAMETERS)
    except (TypeError, ValueError) as error:  # nothing that can be called, or not so
        raise ModelError(
            f"train.step: {path} cannot be called with ({', '.join(PARAMETERS)}): {error}",
            "let it take these four",
        ) from None
    return OwnStep(path, function)


def shares_module(path: str, model: Model) -> bool:
    """Whether the model's function lies in the same module as the step's."""
    return isinstance(model, ImportModel) and module_name(model.path) == module_name(path)
