"""What a request of the Open Inference Protocol v2 over REST asks: JSON, and the bytes of tensors behind it.

Checked before anything is allocated for it. Which tensors a model has tells model_tensors.py.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from raypipe.errors import RequestError
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.base import Call, may_hold_booleans
from raypipe.serve.protocols.model_tensors import ModelTensors, check_parameters
from raypipe.serve.protocols.tensors_json import from_json
from raypipe.serve.schema import kind_of, shown

JSON_LENGTH = b"inference-header-content-length"

HINT = 'send {"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}'


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the answer to one request is written.

    Attributes:
        names: of outputs, in order.
        binary: those to be sent as bytes.
        id: goes back as it came; None: none came.
        headers: number of rows -> JSON of the answer, where nothing else in it varies.
    """

    names: tuple[str, ...]
    binary: frozenset[str]
    id: str | None
    headers: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """One input of a request.

    Attributes:
        data: its values as JSON, where they are.
        num_bytes: of the binary part that are its values, where they are; else None.
    """

    tensor: tensors.Said
    data: Any
    num_bytes: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the JSON of a request says.

    Attributes:
        booleans: whether data may hold `true` or `false`.
    """

    inputs: list[Given]
    wanted: Wanted
    booleans: bool


REMEMBERED_HEADERS = 64
"""JSON parts of requests that hold no data: a client sends the same again and again, and to read and check it takes as
long as the tensors do."""

HEADER_MAX_BYTES = 1024
"""Of those."""


class Requests:
    """Reads them, for one model.

    Args:
        read_json: parses a JSON object; second comes what to say to a client that sends none.
    """

    def __init__(
        self, model_tensors: ModelTensors, read_json: Callable[[bytes | bytearray, str], dict[str, Any]]
    ) -> None:
        self._tensors = model_tensors
        self._read_json = read_json
        self._remembered: dict[bytes, Asked] = {}

    def read(self, call: Call) -> tuple[dict[str, NDArray[Any]], Wanted]:
        """Its tensors by name, and how its answer is to be written.

        Raises:
            RequestError: 400.
        """
        header, binary = _parts(call)
        asked = self._remembered.get(bytes(header)) if len(header) <= HEADER_MAX_BYTES else None
        if asked is None:
            asked = self._asked(header)
        return self._read(asked, binary), asked.wanted

    def _asked(self, header: bytes | bytearray) -> Asked:
        request = self._read_json(header, HINT)
        parameters = _parameters(request, "the request")
        check_parameters(parameters, "the request")
        number = request.get("id")
        if number is not None and not isinstance(number, str):
            raise RequestError(f"'id' must be a text; found {kind_of(number)}", "put it in quotes, or leave it out")
        wanted = self._wanted(request.get("outputs"), parameters.get("binary_data_output"), number)
        asked = Asked(self._given(_objects(request, "inputs")), wanted, may_hold_booleans(header))
        if len(header) <= HEADER_MAX_BYTES and all(each.num_bytes is not None for each in asked.inputs):
            if len(self._remembered) >= REMEMBERED_HEADERS:
                self._remembered.clear()
            self._remembered[bytes(header)] = asked
        return asked

    def _wanted(self, outputs: Any, default: Any, number: str | None) -> Wanted:
        asked = _objects({"outputs": [] if outputs is None else outputs}, "outputs")
        names = self._tensors.check_outputs([each.get("name") for each in asked])
        binary = set(names) if _flag(default, "binary_data_output") and not asked else set()
        for each in asked:
            where = f"output {shown(each['name'])}"
            parameters = _parameters(each, where)
            check_parameters(parameters, where)
            if _flag(parameters.get("binary_data", default), "binary_data"):
                binary.add(each["name"])
        return Wanted(tuple(names), frozenset(binary), number)

    def _given(self, inputs: Sequence[dict[str, Any]]) -> list[Given]:
        described = [tensors.said(each.get("name"), each.get("datatype"), each.get("shape")) for each in inputs]
        self._tensors.check_inputs([tensor.name for tensor in described])
        given: list[Given] = []
        for each, tensor in zip(inputs, described, strict=True):
            parameters = _parameters(each, tensor.where)
            check_parameters(parameters, tensor.where)
            size = parameters.get("binary_data_size")
            if ("data" in each) == (size is not None):
                found_what = "both 'data' and" if "data" in each else "neither 'data' nor"
                raise RequestError(
                    f"{tensor.where}: found {found_what} 'binary_data_size'; one of them is needed", HINT
                )
            if size is not None and type(size) is not int:
                raise RequestError(
                    f"{tensor.where}: 'binary_data_size' is {shown(size)}; a number of bytes is needed", HINT
                )
            given.append(Given(tensor, each.get("data"), size))
        return given

    def _read(self, asked: Asked, binary: memoryview) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        start = 0
        for each in asked.inputs:
            tensor, size = each.tensor, each.num_bytes
            if size is None:
                found[tensor.name] = from_json(tensor, each.data, booleans=asked.booleans)
                continue
            if not 0 <= size <= len(binary) - start:
                raise RequestError(
                    f"{tensor.where}: 'binary_data_size' is {size}; {len(binary) - start} bytes are left after "
                    "the JSON and the inputs before",
                    "send the JSON's length in the header Inference-Header-Content-Length, then the inputs' bytes",
                )
            found[tensor.name] = tensors.from_bytes(tensor, binary[start : start + size])
            start += size
        if start < len(binary):
            raise RequestError(
                f"{len(binary) - start} bytes are left after the last input",
                "'binary_data_size' of all inputs must add up to what follows the JSON",
            )
        return found


def _parts(call: Call) -> tuple[bytes | bytearray, memoryview]:
    """The JSON and what follows it."""
    declared = call.headers.get(JSON_LENGTH)
    if declared is None:
        return call.body, memoryview(b"")
    length = int(declared) if declared.isdigit() and len(declared) < 20 else -1
    if not 0 <= length <= len(call.body):
        raise RequestError(
            f"the header Inference-Header-Content-Length is {shown(declared.decode('latin-1'))}; the body has "
            f"{len(call.body)} bytes",
            "say how many bytes of the body, as it is before compression, are JSON",
        )
    return bytes(call.body[:length]), memoryview(call.body)[length:]


def _objects(request: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = request.get(name)
    if found is None:
        raise RequestError(f"the body must hold {name!r}", HINT)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        what = kind_of(found) if not isinstance(found, list) else "a list that holds something else"
        raise RequestError(f"{name!r} must be a list of objects; found {what}", HINT)
    return found


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(f"{where}: 'parameters' must be an object; found {kind_of(found)}", "leave them out")
    for name, value in found.items():
        if isinstance(value, dict | list):
            raise RequestError(
                f"{where}: parameter {shown(name)} must be text, a number, true or false; found {kind_of(value)}",
                "leave it out",
            )
    return found


def _flag(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RequestError(f"{name!r} must be true or false; found {kind_of(value)}", "leave it out for JSON")
