"""Model spec -> nn.Module that provably fits the data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from raypipe.data.transforms import State
from raypipe.errors import ArtifactError, ModelError
from raypipe.model import own_code, user_code
from raypipe.model.features import Features
from raypipe.model.frozen import freeze
from raypipe.model.tasks import Task, task_of
from raypipe.model.zoo import ZOO
from raypipe.records import Signature
from raypipe.spec.code import OwnModule
from raypipe.spec.model import ImportModel, Model


def build_model(
    spec: Model,
    signature: Signature,
    feature_shape: tuple[int, ...],
    code_dir: Path | None,
    *,
    own: OwnModule | None = None,
    transforms: Sequence[State] = (),
) -> nn.Module:
    """Build the network and run two rows of zeros through it.

    Args:
        feature_shape: shape of one row after the transforms.
        code_dir: folder that `kind: import` paths start from.
        own: the module of `kind: import`, where it was read already.
        transforms: fitted state, of which networks with embeddings learn how many categories or tokens there are.
    Returns:
        A module reading float32 [B, *feature_shape] and giving [B, *task.output_shape]; of one that gives a mapping
        with `logits`, these.
    Raises:
        ModelError: it cannot be built, its output does not fit the target, or a pattern of `spec.frozen` matches no
            parameter.
    """
    if isinstance(spec, ImportModel):
        own_code.run_module(own or own_code.read_module(spec.path, code_dir))
    task = task_of(signature)
    module = ZOO[spec.kind](spec, Features(feature_shape, signature.inputs, transforms), task.num_outputs)
    _check_output(module, spec, feature_shape, task)
    freeze(module, spec.frozen)
    return module


def check_single_row(module: nn.Module, feature_shape: tuple[int, ...]) -> None:
    """Refuse a network that cannot be trained on one row at a time: BatchNorm needs several values a channel.

    What else a network raises in training is told when it is trained.

    Raises:
        ModelError: naming the layer.
    """
    norms = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    device = next(module.parameters()).device
    copied = copy.deepcopy(module).train()  # running averages of the network itself stay as they are
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copied(torch.zeros(1, *feature_shape, device=device))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ModelError(
                f"a worker's batches have one row, but the model holds {type(norms[0][1]).__name__} "
                f"('{norms[0][0]}'), which cannot be trained on a single row",
                "raise train.global_batch_size to 2 rows a worker or more, or lower train.num_workers",
            ) from None
    except Exception:
        return


def outline(
    spec: Model, signature: Signature, feature_shape: tuple[int, ...], transforms: Sequence[State] = ()
) -> nn.Module:
    """One of our own networks without memory: its tensors have names and shapes, but no values.

    Raises:
        ArtifactError: it cannot be built for such rows.
    """
    try:
        with torch.device("meta"), _NothingDrawn():
            features = Features(feature_shape, signature.inputs, transforms)
            return ZOO[spec.kind](spec, features, task_of(signature).num_outputs)
    except ModelError as error:
        raise ArtifactError(error.message, error.hint) from None
    except (RuntimeError, TypeError, ValueError, KeyError, OverflowError) as error:  # a size beyond what torch counts
        raise ArtifactError(f"model: it cannot be built: {type(error).__name__}: {str(error)[:200]}") from None


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors as they are where normal numbers would be drawn: for one without memory torch (2.11) goes by way
    of its compiler, whose import takes longer than all else of a replica's start, and 70 MB."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.init.normal_ or func is torch.Tensor.normal_:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_output(module: nn.Module, spec: Model, feature_shape: tuple[int, ...], task: Task) -> None:
    wanted = (2, *task.output_shape)
    module.eval()
    try:
        with torch.no_grad():
            output = module(torch.zeros(2, *feature_shape))
    except Exception as error:  # the user's forward may raise anything
        raise ModelError(
            f"model.kind: {spec.kind} cannot read rows of shape {list(feature_shape)}: "
            f"{user_code.described_if_own(error)}",
            "fit its first layer to the data's features",
        ) from error
    if _logits_alone(module, (), output) is not output:
        module.register_forward_hook(_logits_alone)  # a hook: a module around it would rename its weights
        output = _logits_alone(module, (), output)
    shape = tuple(check_answer(output, f"model.kind: {spec.kind}").shape)
    if shape != wanted and not (wanted == (2, 1) and shape == (2,)):
        raise ModelError(
            f"model.kind: {spec.kind} answers {list(shape)} for 2 rows, but the target "
            f"'{task.signature.target_text}' is {task.wanted}, so it must answer {list(wanted)}",
            "make its last layer num_outputs wide",
        )


def _logits_alone(module: nn.Module, inputs: object, output: Any) -> Any:
    """What models of Hugging Face answer before a softmax, out of all that they answer; any other output as it is."""
    if isinstance(output, Mapping) and isinstance(output.get("logits"), torch.Tensor):
        return output["logits"]
    return output


def check_answer(output: object, what: str) -> torch.Tensor:
    """What a network answered, which must be one tensor.

    Raises:
        ModelError: it is something else, e.g. a tuple or a dict of tensors.
    """
    if isinstance(output, torch.Tensor):
        return output
    found, hint = f"a {type(output).__name__}", "return the tensor that holds the answer"
    if isinstance(output, tuple | list):
        found += f" of {', '.join(type(part).__name__ for part in output[:4])}"
        hint = "let forward return the one tensor that holds the answer"
    elif isinstance(output, Mapping):
        names = [repr(str(name)) for name in list(output)[:4]]
        found += f" with {', '.join(names)}"
        hint = f"let forward return one of them, e.g. output[{names[0]}]" if names else hint
    raise ModelError(f"{what} answers {found}; it must answer one tensor", hint)
