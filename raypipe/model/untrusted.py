"""What an artifact says, judged before anything is allocated or run by it: others may write to the store.

B rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn

import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from raypipe.data.next_tokens import read_shape
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import ArtifactError, DataError
from raypipe.model.tasks import TASKS
from raypipe.records import Column, Signature, TargetTransform
from raypipe.spec.transforms import Transform

MAX_DESCRIPTION_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 8 * 2**20
"""Of the weights' header: some 80,000 tensors."""

MAX_ROW_VALUES = 2**26
"""Numbers in one row, before and after the transforms: 256 MiB as float32."""

MAX_INPUTS = 2**18

DTYPES = frozenset(
    ("bool", "string", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)

NEWER = "use the version of raypipe that wrote it, or register the model again"

_TRANSFORM: TypeAdapter[Any] = TypeAdapter(Transform)


def refuse(what: str) -> NoReturn:
    """Raise ArtifactError."""
    raise ArtifactError(what, NEWER)


def first_problem(error: ValidationError) -> str:
    """One of the things that are wrong, short: a forged document may have a million."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:80] for part in found['loc'][:8])}: {found['msg'][:200]}".removeprefix(": ")


def check_signature(signature: Signature) -> None:
    """Refuse inputs and classes that no dataset has.

    Raises:
        ArtifactError: naming the field.
    """
    names = [column.name for column in signature.inputs]
    if not names or len(names) > MAX_INPUTS or len(set(names)) < len(names):
        refuse(f"signature.inputs: {len(names)} columns, {len(set(names))} of them different; names must differ")
    for column in signature.inputs:
        if column.dtype not in DTYPES:
            refuse(f"signature.inputs: column '{column.name[:80]}' has the unknown dtype '{column.dtype[:80]}'")
        if column.is_list and (column.dtype != "string" or column.shape):
            refuse(f"signature.inputs: column '{column.name[:80]}' is a list of {column.dtype[:80]}; lists hold text")
        check_shape(f"signature.inputs: column '{column.name[:80]}'", column.shape)
    if sum(math.prod(column.shape) for column in signature.inputs) > MAX_ROW_VALUES:
        refuse(f"signature.inputs: one row has more than {MAX_ROW_VALUES} values")
    if problem := TASKS[signature.task].problem(signature):
        refuse(problem)


def check_shape(what: str, shape: Sequence[int]) -> None:
    """Refuse a shape of one row that is negative, empty or larger than memory.

    Raises:
        ArtifactError: naming it.
    """
    if len(shape) > 8 or any(size < 1 for size in shape) or math.prod(shape) > MAX_ROW_VALUES:
        refuse(f"{what} has shape {_told(shape)}; sizes must be 1 or more, and at most {MAX_ROW_VALUES} in all")


def check_target(transform: TargetTransform, signature: Signature) -> None:
    """Refuse a target transform where the target is no number; its own numbers are judged by its record.

    Raises:
        ArtifactError: naming it.
    """
    if transform.kind != "none" and signature.task != "regression":
        refuse(f"target_transform: {transform.kind} of a {signature.task}")
    if transform.kind != "none":
        wanted = 0 if isinstance(signature.target, str) else len(signature.target)
        for name, value in (("mean", transform.mean), ("std", transform.std)):
            if (len(value) if isinstance(value, tuple) else 0) != wanted:
                refuse(f"target_transform.{name}: it must be one number for each of {len(signature.targets)} target(s)")


def check_transforms(states: Sequence[dict[str, Any]], signature: Signature, feature_shape: tuple[int, ...]) -> None:
    """Refuse transforms that cannot be applied to the inputs, or give another shape than the model reads.

    Raises:
        ArtifactError: naming the transform.
    """
    check_shape("feature_shape", feature_shape)
    inputs = {column.name for column in signature.inputs}
    for number, state in enumerate(states):
        try:
            _check_state(state, inputs)
            FittedTransforms([state])
        except ArtifactError as error:
            refuse(f"transforms.{number}: {error.message}")
        except ValidationError as error:
            refuse(f"transforms.{number}: {first_problem(error)}")
        except DataError as error:
            refuse(f"transforms.{number}: {error.message}")
        except Exception as error:  # a state can be wrong in as many ways as there are kinds
            refuse(f"transforms.{number}: {type(error).__name__}: {str(error)[:200]}")
    try:
        transforms = FittedTransforms(states)
        shape = transforms.feature_shape(signature.inputs)
        for is_missing in (False, True):
            _try_row(transforms, signature.inputs, is_missing)
    except DataError as error:
        refuse(f"transforms: {error.message}")
    except Exception as error:
        refuse(f"transforms: they cannot be applied to the inputs: {type(error).__name__}: {str(error)[:200]}")
    shape = read_shape(signature, shape)
    if shape != feature_shape:
        refuse(f"feature_shape: found {_told(feature_shape)}, but the transforms give {_told(shape)}")


def tensor_shapes(weights: bytes) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file, from its header alone.

    Raises:
        ArtifactError: there is no such header, or it is too large.
    """
    size = int.from_bytes(weights[:8], "little")
    if size > MAX_HEADER_BYTES or size > len(weights) - 8:
        refuse(f"the weights' header says it has {size} bytes; it may have {MAX_HEADER_BYTES}, and the file has more")
    try:
        header = json.loads(weights[8 : 8 + size])
        header.pop("__metadata__", None)
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        refuse(f"the weights' header cannot be read: {type(error).__name__}: {str(error)[:200]}")
    return shapes


def check_weights(shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the network.

    Args:
        shapes: what the file holds.
        state: what the network has; may be without memory (torch's `meta` device).
    Raises:
        ArtifactError: naming tensors of which one side has none, or another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes == wanted:
        return
    other = [name for name in {**wanted, **shapes} if shapes.get(name) != wanted.get(name)]
    told = [f"{n[:80]} is {_told(shapes.get(n))}, not {_told(wanted.get(n))}" for n in islice(other, 3)]
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    refuse(f"the weights do not fit the model: {'; '.join(told)}{more}")


def _told(shape: Sequence[int] | None) -> str:
    """Short: a forged shape may have a million sizes, and a size thousands of digits."""
    if shape is None:
        return "absent"
    sizes = [str(n) if abs(n) < 10**12 else "more than 10^12" for n in shape[:8]]
    return f"[{', '.join(sizes)}{', ...' if len(shape) > 8 else ''}]"


def _check_state(state: dict[str, Any], inputs: set[str]) -> None:
    columns, reads = state.get("columns"), state.get("reads")
    if not isinstance(columns, dict) or not all(isinstance(fitted, dict) for fitted in columns.values()):
        refuse("`columns` does not say what was fitted for each")
    if reads is not None and not (isinstance(reads, list) and all(isinstance(name, str) for name in reads)):
        refuse("`reads` is no list of columns")
    names = list(columns) if reads is None else reads
    if absent := next((name for name in names if name not in inputs), None):
        refuse(f"there is no input '{absent[:80]}'")
    settings = {key: value for key, value in state.items() if key not in ("columns", "reads")}
    spec = _TRANSFORM.validate_python({**settings, "columns": names})
    if (spec.kind == "cross") != (reads is not None):
        refuse(f"{spec.kind} {'needs' if reads is None else 'has no'} `reads`")
    json.dumps(columns, allow_nan=False)


def _try_row(transforms: FittedTransforms, inputs: Sequence[Column], is_missing: bool) -> None:
    row: dict[str, np.ndarray] = {}
    for column in inputs:
        if column.dtype == "string":
            row[column.name] = np.full(
                (1, *column.shape), None if is_missing and column.nullable else column.empty_text, object
            )
        else:
            values = np.zeros((1, *column.shape), np.float64 if column.nullable else column.dtype)
            row[column.name] = values * np.nan if is_missing and column.nullable else values
    try:
        transforms.apply(row, inputs)
    except DataError:
        return  # a row may be refused: an empty text is no known category
