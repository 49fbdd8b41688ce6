"""How the ranks hold one model: each alone, each a copy (DDP), or each a part of every tensor (FSDP2).

The loop, the checkpoints and the averages know none of this: they ask a Parallel for the network to call, for the norm
of the gradient, and for the pieces of tensors that this rank holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel

from raypipe.train.blocks import blocks_of
from raypipe.train.fit_out import meets_in_forward
from raypipe.train.rows import World

MODEL, OPTIMIZER = "model/", "optimizer/"
"""How the names of pieces begin; `optimizer/NAME/KEY` belongs to the parameter `model/NAME`."""

NOTHING = nullcontext()


class Piece(NamedTuple):
    """What this rank holds of one tensor.

    Attributes:
        values: the training's own memory, on its device; empty where the tensor has too few rows for every rank.
        shape: of the whole tensor.
        start: where in it the values begin, one number a dimension.
        is_copy: every rank holds the whole tensor, with the same values.
    """

    values: Tensor
    shape: tuple[int, ...]
    start: tuple[int, ...]
    is_copy: bool


def piece_of(tensor: Tensor) -> Piece:
    """The piece of a tensor that this rank holds: all of it, unless it is sharded."""
    if not isinstance(tensor, DTensor):
        return Piece(tensor.detach(), tuple(tensor.shape), (0,) * tensor.dim(), True)
    _, start = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Piece(tensor._local_tensor.detach(), tuple(tensor.shape), tuple(start), False)


def like(tensor: Tensor, local: Tensor) -> Tensor:
    """This rank's values of a tensor that is held as another one is."""
    local = local.to(tensor.device)
    if not isinstance(tensor, DTensor):
        return local
    return DTensor.from_local(
        local, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, without its gradient; where it is sharded, every rank must ask for it at the same time."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


class Parallel:
    """One way to hold a model.

    Args:
        module: the user's network itself: what is validated.
        network: what a training step calls.
    Attributes:
        parameters: of `module`; they may be others than before it was taken into use, so an optimizer is built then.
        optimizer: over `parameters`; set once it is built.
        told: events that say why this way was chosen, where the file leaves it open.
    """

    name: ClassVar[str]
    """Kept with checkpoints, so that a training goes on in the way it began."""

    optimizer: torch.optim.Optimizer

    casts = False
    """Whether it computes in the file's precision by itself."""

    calls_meet = False
    """Whether a forward pass waits for those of the other ranks: then all must make equally many."""

    def __init__(self, world: World, module: nn.Module, network: nn.Module) -> None:
        self.world, self.module, self.network = world, module, network
        self.parameters = list(module.parameters())
        self._names = [name for name, _ in module.named_parameters()]
        self._held = dict(module.state_dict())
        self._buffers = [(each, name) for each in module.modules() for name, _ in each.named_buffers(recurse=False)]
        """Their owners and names: a forward pass may put another tensor there, and a search would cost each step."""
        self.told: list[dict[str, Any]] = []

    @property
    def finds_room(self) -> bool:
        """Whether a rank can try by itself how many rows its GPU has room for."""
        return self.world.device.type == "cuda" and not self.calls_meet

    def accumulate(self, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro batch: gradients are averaged over the ranks with the last one."""
        return NOTHING

    def begin_step(self) -> None:
        """Before the first forward pass of an optimizer step, on every rank."""

    def stand_in(self) -> bool:
        """After a forward pass of this rank that failed: take part in the backward pass of the others, with a gradient
        that is NaN, which tells them. False: this rank cannot; who started the ranks must end them."""
        return False

    def release(self) -> None:
        """Give back what forward passes without a backward pass have borrowed; needed before weights are changed."""

    def norm_and_clip(self, largest: float | None) -> Tensor | float | None:
        """Clip the averaged gradient to an L2 norm.

        Returns:
            Its norm before, or another number that is finite where the gradient is; the same on every rank. None where
            nobody needs to know it.
        """
        if largest is not None:
            return whole(nn.utils.clip_grad_norm_(self.parameters, largest))
        return self.norm()

    def norm(self) -> Tensor:
        """L2 norm of the gradient over all parameters, the same on every rank."""
        return whole(nn.utils.get_total_norm(self.gradients()))

    def weights_norm(self) -> Tensor:
        """L2 norm of all parameters; not finite where one of them is not. On every rank at the same time."""
        return whole(nn.utils.get_total_norm([parameter.detach() for parameter in self.parameters]))

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    # ---- tensors

    def tensors(self) -> dict[str, Tensor]:
        """Those of model and optimizer, by name, held as the training holds them."""
        tensors: dict[str, Tensor] = {MODEL + name: value for name, value in self.module.state_dict().items()}
        for name, parameter in zip(self._names, self.parameters, strict=True):
            state: dict[str, Any] = self.optimizer.state.get(parameter, {})
            tensors |= {f"{OPTIMIZER}{name}/{kind}": value for kind, value in state.items() if value is not None}
        return tensors

    def local_pieces(self) -> dict[str, Piece]:
        """What this rank holds of model and optimizer, by name; the memory is the training's own."""
        return {name: piece_of(tensor) for name, tensor in self.tensors().items()}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take over this rank's values of `local_pieces`; names other than of model and optimizer are passed over.

        Args:
            values: of every tensor of the model, and of the optimizer all that it had when it was saved.
        """
        held = self.module.state_dict()
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(like(tensor, values[MODEL + name]))
        state: dict[int, dict[str, Tensor]] = {}
        index_of = {name: index for index, name in enumerate(self._names)}
        for key, local in values.items():
            if key.startswith(OPTIMIZER):
                name, _, kind = key.removeprefix(OPTIMIZER).rpartition("/")
                parameter = self.parameters[index_of[name]]
                state.setdefault(index_of[name], {})[kind] = local if local.dim() == 0 else like(parameter, local)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def place(self, name: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Which part of a whole tensor of a checkpoint this rank holds, however many ranks wrote it.

        Args:
            name: as in `local_pieces`, or of another tensor that is held as a parameter is: PREFIX/PARAMETER.
        """
        name = name.partition("/")[2]
        held = self._held.get(name, self._held.get(name.rpartition("/")[0]))
        if not isinstance(held, DTensor) or tuple(held.shape) != shape:
            return tuple(slice(0, length) for length in shape)
        lengths, start = compute_local_shape_and_global_offset(held.shape, held.device_mesh, held.placements)
        return tuple(slice(first, first + length) for first, length in zip(start, lengths, strict=True))

    def full_state(self) -> dict[str, Tensor]:
        """The model's tensors, whole. On every rank at the same time; ranks but the first get nothing where they do not
        hold it anyway, for it may be more than one of them has room for."""
        return self.whole_tensors(self.module.state_dict())

    def whole_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `full_state`, of any tensors: of the same names on every rank, in whatever order."""
        found: dict[str, Tensor] = {}
        for name in sorted(tensors):
            tensor, full = tensors[name], whole(tensors[name])
            if not isinstance(tensor, DTensor):
                found[name] = full
            elif self.world.rank == 0:
                found[name] = full.cpu()
        return found

    def packaged(self, build: Callable[[], nn.Module]) -> nn.Module | None:
        """A network that holds its tensors whole, on rank 0; on every rank at the same time.

        Args:
            build: makes such a network anew, where the one that was trained is in parts.
        """
        return self.module if self.world.rank == 0 else None

    def agree_on_buffers(self) -> None:
        """Give every rank the buffers of rank 0 (running averages), which are those that are saved; those of one dtype
        travel together."""
        if self.world.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for owner, name in self._buffers:
            buffer = getattr(owner, name)
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            values = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(values, src=0)
            if self.world.rank != 0:
                for buffer, value in zip(buffers, values.split([each.numel() for each in buffers]), strict=True):
                    buffer.copy_(value.view(buffer.shape))


class Alone(Parallel):
    """One rank."""

    name = "ddp"  # it may be joined by others

    def __init__(self, world: World, module: nn.Module) -> None:
        module = module.to(world.device)
        super().__init__(world, module, module)

    def norm_and_clip(self, largest: float | None) -> Tensor | float | None:
        return super().norm_and_clip(largest) if largest is not None else None


class Ddp(Parallel):
    """Every rank holds a copy; gradients are averaged while the backward pass goes on.

    Args:
        has_unused: there are parameters that the forward does not use.
    """

    name = "ddp"

    def __init__(self, world: World, module: nn.Module, has_unused: bool) -> None:
        module = module.to(world.device)
        devices = [world.device] if world.device.type == "cuda" else None
        self._ddp = DistributedDataParallel(module, device_ids=devices, find_unused_parameters=has_unused)
        # DDP would do it within forward passes, where a rank whose pass fails cannot tell whether it did.
        self._ddp.broadcast_buffers = False
        super().__init__(world, module, self._ddp)
        self._learning = [] if has_unused else [each for each in self.parameters if each.requires_grad]
        """Of which a backward pass may leave some out; DDP looks for them itself where it knows of any."""
        self._has_gradients = False

    def accumulate(self, is_last: bool) -> AbstractContextManager[None]:
        if is_last:
            return self._completed()
        self._has_gradients = True
        return self._ddp.no_sync()

    @contextmanager
    def _completed(self) -> Iterator[None]:
        """Give parameters that this rank's pass does not reach, as the network took a branch, a part of 0 in the mean
        gradient: the other ranks wait for it, and nobody would tell."""
        before = [_version(each) for each in self._learning] if self._has_gradients else []
        self._has_gradients = False
        yield
        missed = [each for each in self._learning if each.grad is None]
        if before:
            after = [_version(each) for each in self._learning]
            missed = [each for each, was, now in zip(self._learning, before, after, strict=True) if was == now]
        if missed:
            (torch.stack([each.sum() for each in missed]).sum() * 0.0).backward()

    def norm_and_clip(self, largest: float | None) -> Tensor | float | None:
        if largest is not None or self.world.device.type != "cpu":
            return super().norm_and_clip(largest)
        # a quarter of the time of a norm, at each step; NaN and infinity stay in a sum
        return sum(float(each.sum()) for each in self.gradients())

    def begin_step(self) -> None:
        self.agree_on_buffers()  # a forward pass may read what another rank's would have averaged otherwise

    def stand_in(self) -> bool:
        if meets_in_forward(self.module):
            return False
        self._ddp.module = _NanForAll(self.parameters)
        try:
            self._ddp().backward()
        finally:
            self._ddp.module = self.module
        return True


def _version(parameter: nn.Parameter) -> int | None:
    """Another number each time that something was added to the gradient; None: there is none."""
    return None if parameter.grad is None else parameter.grad._version


class _NanForAll(nn.Module):
    """Gives every parameter that learns a gradient, of NaN."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self._learning = [each for each in parameters if each.requires_grad]

    def forward(self) -> Tensor:
        return torch.stack([each.sum() for each in self._learning]).sum() * math.nan


class Sharded(Parallel):
    """Every rank holds a part of each tensor, and borrows the others' while a block of layers needs them.

    Args:
        policy: in which precision a block computes.
    """

    name = "sharded"
    calls_meet = casts = True

    def __init__(self, world: World, module: nn.Module, policy: MixedPrecisionPolicy) -> None:
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in blocks_of(module):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        self._root = fully_shard(module, mesh=mesh, mp_policy=policy)
        super().__init__(world, module, module)

    @contextmanager
    def accumulate(self, is_last: bool) -> Iterator[None]:
        self._root.set_requires_gradient_sync(is_last)
        yield

    def begin_step(self) -> None:
        self.agree_on_buffers()  # as Ddp does

    def release(self) -> None:
        for each in self.module.modules():
            if isinstance(each, FSDPModule):
                each.reshard()

    def packaged(self, build: Callable[[], nn.Module]) -> nn.Module | None:
        state = self.full_state()
        if self.world.rank != 0:
            return None
        module = build()
        module.load_state_dict(state)
        return module
