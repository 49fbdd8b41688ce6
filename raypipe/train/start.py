"""What a training begins with: the network, built from the order and with the weights that it starts from, checked
before a row is read; what it learns by; and what is told of it all."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from raypipe.model.build import build_model
from raypipe.model.first_weights import start_from
from raypipe.model.losses import Loss
from raypipe.model.target import loss_factor
from raypipe.model.trainable import check_trainable, told
from raypipe.records import TargetTransform
from raypipe.storage import Store
from raypipe.train.class_weights import learned_loss
from raypipe.train.order import TrainOrder
from raypipe.train.own_step import OwnStep, load_step, shares_module
from raypipe.train.rows import World
from raypipe.train.target import learned_target


class Start(NamedTuple):
    """A network that provably can be trained, on the CPU, and what it learns by.

    Attributes:
        unused: names of parameters that wait for a gradient, but that the forward does not use.
        own_step: the user's own way from rows to a loss; None: the usual one.
        loss_factor: from the loss the network learns by to the one that is told.
        events: what a person is told of them.
        notes: what a person is told once it is known from which step the training goes on.
    """

    module: nn.Module
    unused: list[str]
    own_step: OwnStep | None
    loss: Loss
    loss_factor: float
    target_transform: TargetTransform
    events: list[dict[str, Any]]
    notes: list[str]


def start(order: TrainOrder, store: Store, world: World) -> Start:
    """What a training begins with, on every rank alike.

    Raises:
        ModelError: the network cannot be built or trained, the weights do not fit it, or the user's step is not there.
        DataError: the target, or the classes, do not allow what the file asks for.
        DigestMismatch, ObjectMissing: weights, or a shard that had to be read, are damaged or not there.
    """
    spec, dataset = order.spec.train, order.dataset
    module, starts_from, unused, own_step = trainable_network(order, store)
    loss, weights_told = learned_loss(spec, dataset, store, world.device)
    target, target_told = learned_target(spec, dataset, store)
    events: list[dict[str, Any]] = []
    if starts_from:
        events.append({"event": "first_weights", "text": starts_from})
    if target_told:
        events.append({"event": "target", "text": target_told, "target": target.model_dump(mode="json")})
    if unused:
        text = f"the network's forward does not use {told(unused)}: they stay as they are"
        events.append({"event": "unused", "text": text, "parameters": unused})
    if dataset.weights is not None:
        text = f"rows count as '{dataset.weights.column}' says, in losses and metrics (1 is the mean of their split)"
        events.append({"event": "weights", "text": text})
    factor = loss_factor(spec.loss, target)
    return Start(module, unused, own_step, loss, factor, target, events, [weights_told] if weights_told else [])


def build_network(order: TrainOrder) -> nn.Module:
    """The order's network as torch's generator makes it, on the CPU."""
    dataset = order.dataset
    return build_model(
        order.spec.model, dataset.signature, dataset.feature_shape, order.code_dir, transforms=dataset.transforms
    )


def started_network(order: TrainOrder, store: Store) -> tuple[nn.Module, str]:
    """The order's network on the CPU; torch's generator decides what `model.init_from` does not.

    Returns:
        The network, and what it starts from in words; "": the seed decides all.
    Raises:
        ModelError: it cannot be built, or the weights do not fit it.
        DigestMismatch, ObjectMissing: the weights are damaged, or not there.
    """
    module = build_network(order)
    weights = order.read_first_weights(store)
    return module, "" if weights is None else start_from(module, order.spec.model, weights)


def trainable_network(order: TrainOrder, store: Store) -> tuple[nn.Module, str, list[str], OwnStep | None]:
    """The network as a training takes it.

    Returns:
        The network; what it starts from, in words; its unused parameters; and the user's own step.
    Raises:
        ModelError: see `started_network`; or it cannot be trained; or the user's step is not there.
        DigestMismatch, ObjectMissing: the weights are damaged, or not there.
    """
    path, model = order.spec.train.step, order.spec.model
    step = None
    if path is not None and not shares_module(path, model):  # first: the module that ran last is the model's
        step = load_step(path, model, order.code_dir)
    module, starts_from = started_network(order, store)
    unused = check_trainable(module, model.kind, order.dataset.feature_shape)
    if path is not None and step is None:
        step = load_step(path, model, order.code_dir)
    return module, starts_from, unused, step
