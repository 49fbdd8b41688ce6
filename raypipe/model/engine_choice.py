"""Which engine calls a network: it is prepared, its answers are compared with eager's, and what differs is not used.

`auto` never fails: where anything speaks against the faster engine, the network is called as it is, and the reason
is kept.  Shape letters: B rows.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raypipe.errors import RaypipeError, ServeError
from raypipe.model import user_code
from raypipe.model.engines import ENGINES, AnsweringNetwork, Engine, Features
from raypipe.model.engines.eager import Eager
from raypipe.spec.serve import EngineName

TOLERANCE = 1e-6
"""How far an answer may lie from eager's: absolute below 1, relative above."""

BATCH_SIZES = (2, 1, 7, 33)
"""Rows of the calls that are compared. The first is what engines prepare with: a network that lets its number of rows
decide anything shows it at the others."""

NUM_ALONE = 5
"""Rows that are also asked by themselves: nobody's answer may depend on who shares the call."""

MAX_TRIAL_CALL_S = 0.1
"""Larger calls than this are left out of the comparison of a slow network."""

MAX_ROW_S = 0.5
"""A network that takes longer for one row has little to gain, and the comparison would hold up the start."""

MAX_REASON_CHARS = 200

_ERROR_LINE = re.compile(r"\w+Error: ")

COUNTED = (bool, int, float, str, bytes, type(None))
"""Attributes that a forward may change by setting them anew."""

CONTAINERS = (list, dict, set, tuple)


@dataclass(frozen=True)
class EngineChoice:
    """Which engine is used, and why; for the log and for who asks the endpoint.

    Attributes:
        name: key of ENGINES.
        reason: one line.
    """

    name: str
    reason: str


def choose_engine(wanted: EngineName, network: AnsweringNetwork, probes: Features) -> tuple[Engine, EngineChoice]:
    """Make a network ready to be called.

    Args:
        wanted: serve.engine.
        probes: rows to compare with, 33 or more where there are as many, the oddest first.
    Raises:
        ServeError: the engine that the file names cannot be made, or answers differently from eager.
    """
    eager = Eager(network, ())
    if wanted == "eager":
        return eager, EngineChoice("eager", "as asked for")
    name = wanted if wanted != "auto" else "traced" if network.device == "cpu" else "graphs"
    try:
        return _compared(name, eager, probes, is_chosen=wanted != "auto")
    except _NotUsed as unfit:
        if wanted == "auto":
            return eager, EngineChoice("eager", f"{name} is not used: {unfit}")
        raise ServeError(f"serve.engine: {name} is refused: {unfit}", "set serve.engine: auto") from unfit.__cause__


def refuse_engine(wanted: EngineName) -> None:
    """Raise ServeError where the file names an engine for a model whose answers take many calls of the network."""
    if wanted not in ("auto", "eager"):
        raise ServeError(
            f"serve.engine: {wanted} is refused: the model writes its answers token by token, each a call of its own",
            "set serve.engine: auto",
        )


class _NotUsed(Exception):
    """Why an engine is not used, in words."""


def _compared(name: str, eager: Eager, probes: Features, *, is_chosen: bool) -> tuple[Engine, EngineChoice]:
    """The engine, and what speaks for it.

    Args:
        is_chosen: the file names it: what is no more than a suspicion is told, and the engine used.
    Raises:
        _NotUsed: what speaks against it.
        ServeError: it lacks something on this machine.
    """
    network = eager.network
    before = _state(network)
    samples, expected = _asked(eager, probes)
    changed = _changed(before, _state(network))
    suspicions = [f"the network changes its own state when it is called ({changed})"] if changed else []
    again = [eager(sample.copy()) for sample in samples]
    if _gap(again, expected) > 0:
        raise _NotUsed("eager itself answers the same rows differently from call to call")
    if suspicions and not is_chosen:
        raise _NotUsed(suspicions[0])
    start = time.perf_counter()
    try:
        engine = ENGINES[name](network, samples)
    except RaypipeError:
        raise
    except Exception as error:  # torch may raise anything on what users write
        raise _NotUsed(f"it cannot be prepared: {_in_short(error)}") from error
    suspicions += engine.notes
    if suspicions and not is_chosen:
        raise _NotUsed(suspicions[0])
    seconds = time.perf_counter() - start
    gap = _engine_gap(engine, samples, expected)
    same = "equal to eager's to the bit" if gap == 0 else f"within {gap:.1g} of eager's"
    told = "".join(f"; but {suspicion}" for suspicion in suspicions)
    return engine, EngineChoice(name, f"its answers are {same} (prepared in {seconds:.2g} s){told}")


def _asked(eager: Eager, probes: Features) -> tuple[list[Features], list[NDArray[Any]]]:
    """Rows by call, and eager's answers; fewer calls where the network is slow."""
    try:
        eager(probes[:1].copy())  # libraries set themselves up
        start = time.perf_counter()
        eager(probes[:1].copy())
        row_s = time.perf_counter() - start
        if row_s > MAX_ROW_S:
            raise _NotUsed(f"one row takes {row_s:.2g} s, of which it would save next to nothing")
        sizes = [size for i, size in enumerate(BATCH_SIZES) if i < 2 or size * row_s <= MAX_TRIAL_CALL_S]
        samples = [probes[: min(size, len(probes))] for size in sizes]
        return samples, [eager(sample.copy()) for sample in samples]
    except _NotUsed:
        raise
    except Exception as error:
        raise _NotUsed(f"the network fails on rows made to try it: {_in_short(error)}") from error


def _engine_gap(engine: Engine, samples: Sequence[Features], expected: Sequence[NDArray[Any]]) -> float:
    """The largest difference from eager; refused beyond the tolerance."""
    try:
        found = [engine(sample.copy()) for sample in samples]
        repeated = [engine(sample.copy()) for sample in samples]
        widest = max(range(len(samples)), key=lambda i: len(samples[i]))
        alone = [engine(samples[widest][i : i + 1].copy()) for i in range(min(NUM_ALONE, len(samples[widest])))]
    except Exception as error:
        raise _NotUsed(f"it fails where eager answers: {_in_short(error)}") from error
    gap = _gap(found, expected)
    if np.isinf(gap):
        raise _NotUsed("its answers differ from eager's in shape, or in where they are no finite numbers")
    if gap > TOLERANCE:
        raise _NotUsed(f"its answers differ from eager's by {gap:.3g}, more than {TOLERANCE:g}")
    if _gap(repeated, found) > 0:
        raise _NotUsed("it answers the same rows differently from call to call")
    between = _gap(alone, [found[widest][i : i + 1] for i in range(len(alone))])
    if between > TOLERANCE:
        raise _NotUsed(f"a row's answer moves by {between:.3g} with who shares its call, more than {TOLERANCE:g}")
    return gap


def _gap(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """The largest difference, relative above 1; infinite where shapes, NaN or infinities differ."""
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if np.array_equal(one, other, equal_nan=True):
            continue
        there = np.isfinite(one) & np.isfinite(other)
        if not np.array_equal(one[~there], other[~there], equal_nan=True):
            return float("inf")
        scale = np.maximum(1.0, np.abs(other[there].astype(np.float64)))
        largest = max(largest, float((np.abs(one[there].astype(np.float64) - other[there]) / scale).max(initial=0.0)))
    return largest


def _state(network: nn.Module) -> dict[str, Any]:
    """All that a call may change without a trace in its answers, by name.

    A tensor counts its changes in place. Python's own values are compared, containers by their length.
    """
    found: dict[str, Any] = {
        "the generator of torch": torch.get_rng_state().numpy().tobytes(),
        "the generator of Python": random.getstate(),
        "the generator of numpy": repr(np.random.get_state()),
    }
    for prefix, module in network.named_modules():
        for name, value in vars(module).items():
            where = f"{prefix}.{name}".removeprefix("network.").lstrip(".")
            if name in ("_parameters", "_buffers"):
                for tensor_name, tensor in value.items():
                    key = f"{where.removesuffix(name)}{tensor_name}"
                    found[key] = None if tensor is None else (id(tensor), tensor._version)
            elif isinstance(value, COUNTED):
                found[where] = value
            elif isinstance(value, CONTAINERS) and not name.startswith("_"):
                found[where] = (id(value), len(value))
            elif isinstance(value, torch.Tensor):
                found[where] = (id(value), value._version)
    return found


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first names that differ; empty where none does."""
    names = [name for name in {**before, **after} if before.get(name, before) != after.get(name, after)]
    return ", ".join(names[:3])


def _in_short(error: Exception) -> str:
    """One line without a path of this machine: it may be told to who asks the endpoint."""
    if user_code.is_raised_by(error):
        return user_code.described(error)[:MAX_REASON_CHARS]
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "/" not in line]
    said = [line for line in lines if _ERROR_LINE.match(line)][-1:]  # what TorchScript quotes at the end of pages
    kind = type(error).__name__
    return said[0][:MAX_REASON_CHARS] if said else f"{kind}: {lines[0][:MAX_REASON_CHARS]}" if lines else kind
