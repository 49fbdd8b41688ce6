from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raypipe.errors import RequestError
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.oip_grpc import CONTENTS, MESSAGES
from raypipe.serve.protocols.tensors import DATATYPES, MAX_DIMS, NUMBERS, said
from raypipe.serve.protocols.tensors_json import from_json

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def numbers(datatype: str) -> Any:
    """Arrays of a datatype, finite."""
    dtype = np.dtype(NUMBERS[datatype])
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    return hnp.arrays(dtype, SHAPES, elements=elements)


TEXTS = hnp.arrays(object, SHAPES, elements=st.text(st.characters(exclude_categories=["Cs"]), max_size=6))


@st.composite
def arrays(draw: Any) -> tuple[str, Any]:
    """A datatype that has both forms, and an array of it."""
    datatype = draw(st.sampled_from([*NUMBERS, "BYTES"]))
    return datatype, draw(TEXTS if datatype == "BYTES" else numbers(datatype))


def assert_same(found: Any, values: Any) -> None:
    assert found.shape == values.shape and found.dtype == values.dtype
    assert np.array_equal(found, values)


@given(arrays())
def test_tensor_through_json_comes_back_flat_and_nested(array: tuple[str, Any]):
    datatype, values = array
    tensor = said("x", datatype, list(values.shape))
    for data in (values.ravel().tolist(), values.tolist()):
        for booleans in (True, datatype == "BOOL"):
            assert_same(from_json(tensor, json.loads(json.dumps(data)), booleans=booleans), values)


@given(arrays())
def test_tensor_through_bytes_comes_back(array: tuple[str, Any]):
    datatype, values = array
    assert tensors.datatype_of(values) == datatype
    data = b"odd" + tensors.to_bytes(values)  # numbers need not begin where the machine would like them to
    assert_same(tensors.from_bytes(said("x", datatype, values.shape), memoryview(data)[3:]), values)


@given(arrays().filter(lambda array: array[0] in CONTENTS))
def test_tensor_through_typed_contents_comes_back(array: tuple[str, Any]):
    datatype, values = array
    flat = [text.encode() for text in values.ravel()] if datatype == "BYTES" else values.ravel().tolist()
    sent = MESSAGES["InferTensorContents"](**{CONTENTS[datatype]: flat})
    received = getattr(MESSAGES["InferTensorContents"].FromString(sent.SerializeToString()), CONTENTS[datatype])
    read = tensors.from_texts if datatype == "BYTES" else tensors.from_numbers
    assert_same(read(said("x", datatype, values.shape), received), values)


@given(numbers("FP32"))
def test_bf16_is_the_upper_half_of_a_float(values: Any):
    halves = values.astype("<f4").view("<u4") >> 16
    found = tensors.from_bytes(said("x", "BF16", values.shape), memoryview(halves.astype("<u2").tobytes()))
    assert_same(found, (halves << 16).view(np.float32))


def test_numbers_as_bytes_are_not_copied():
    data = np.arange(6, dtype="<f4").tobytes()
    found = tensors.from_bytes(said("x", "FP32", [2, 3]), memoryview(data))
    assert not found.flags.owndata and not found.flags.writeable


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "words"),
    [
        (None, "FP32", [1], "the 'name' of an input must be a text; found null"),
        ("", "FP32", [1], "must be a text"),
        ("x", "FP23", [1], "unknown datatype 'FP23'"),
        ("x", ["FP32"], [1], "unknown datatype"),
        ("x", None, [1], "unknown datatype None"),
        ("x", "FP32", None, "'shape' must be a list of integers; found null"),
        ("x", "FP32", "1", "must be a list"),
        ("x", "FP32", [], "0 dimensions"),
        ("x", "FP32", [1] * 65, f"65 dimensions; 1 to {MAX_DIMS}"),
        ("x", "FP32", [-1, 2], "'shape' holds -1"),
        ("x", "FP32", [1.0], "'shape' holds 1.0"),
        ("x", "FP32", [True], "'shape' holds True"),
        ("x", "FP32", [2**63], "'shape' holds 9223372036854775808"),
    ],
)
def test_what_cannot_be_true_of_a_tensor_is_refused(name: Any, datatype: Any, shape: Any, words: str):
    with pytest.raises(RequestError) as raised:
        said(name, datatype, shape)
    assert raised.value.status == 400 and words in raised.value.message and raised.value.hint


def test_unknown_datatype_is_told_the_nearest():
    with pytest.raises(RequestError) as raised:
        said("x", "float32", [1])
    assert "datatypes are" in raised.value.hint or "did you mean" in raised.value.hint
    with pytest.raises(RequestError) as raised:
        said("x", "uint8", [1])
    assert raised.value.hint == "did you mean UINT8?"


@pytest.mark.parametrize("datatype", DATATYPES)
def test_shape_of_an_impossible_size_allocates_nothing(datatype: str):
    for shape in ([2**62, 2**62, 2**62], [0, 2**62, 2**62]):
        with pytest.raises(RequestError, match="more than any memory"):
            said("x", datatype, shape)
    huge = said("x", datatype, [2**29, 2**29])
    tracemalloc.start()
    with pytest.raises(RequestError):
        tensors.from_bytes(huge, memoryview(bytes(64)))
    with pytest.raises(RequestError):
        from_json(huge, [0] * 8)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP32", [2], bytes(4), "found 4 bytes; FP32 of 'shape' [2] takes 8"),
        ("UINT8", [2, 2], bytes(5), "found 5 bytes"),
        ("BOOL", [2], b"\1\2", "found the byte 2"),
        ("BYTES", [1], b"\2\0\0\0a", "text 0 of 1 does not end"),
        ("BYTES", [1], b"\1\0\0\0ab", "text 1 of 1 does not end"),
        ("BYTES", [1], b"\xff\xff\xff\xffa", "does not end"),
        ("BYTES", [2], b"\4\0\0\0abcd", "'data' holds 1 values; 'shape' [2] says 2"),
        ("BYTES", [3], b"\1\0\0\0a", "cannot hold the 3 texts"),
        ("BYTES", [1], b"\1\0\0\0\xff", "text 0 is no UTF-8"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype: str, shape: list[int], data: bytes, words: str):
    with pytest.raises(RequestError) as raised:
        tensors.from_bytes(said("x", datatype, shape), memoryview(data))
    assert raised.value.status == 400 and words in raised.value.message and "'x'" in raised.value.message


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP32", [2], None, "'data' must be a list; found null"),
        ("FP32", [2], {"a": 1}, "found an object"),
        ("FP32", [2], [1, 2, 3], "'data' holds 3 values; 'shape' [2] says 2"),
        ("FP32", [2, 2], [[1, 2], [3]], "a list of 1 at depth 1; 'shape' [2, 2] says 2"),
        ("FP32", [2, 2], [[1, 2], [3, 4], [5, 6]], "a list of 3 at depth 0"),
        ("FP32", [2, 2], [[1, 2], "ab"], "nested unevenly"),
        ("FP32", [2, 2], [[1, 2], [3, [4]]], "found a list of 1 at [1, 1]; FP32 is expected"),
        ("FP32", [2], [1, True], "found True (boolean) at [1]"),
        ("FP32", [2], [1, "2"], "found '2' (string) at [1]"),
        ("FP32", [2], [1, 1e39], "found 1e+39 (number) at [1]"),
        ("FP16", [1], [70000], "found 70000 (integer) at [0]"),
        ("FP64", [1], [10**400], "at [0]"),
        ("INT8", [2], [1, 128], "found 128 (integer) at [1]; INT8 is expected"),
        ("UINT8", [1], [-1], "found -1"),
        ("INT32", [1], [1.5], "found 1.5"),
        ("INT64", [1], [2**63], "found 9223372036854775808"),
        ("INT64", [2], [1, None], "found None (null) at [1]"),
        ("BOOL", [2], [True, 1], "found 1 (integer) at [1]; BOOL is expected"),
        ("BYTES", [1], [1], "found 1 (integer) at [0]; BYTES is expected"),
        ("BF16", [1], [1], "BF16 is not read from JSON"),
    ],
)
def test_json_that_does_not_fit_is_refused_with_its_place(datatype: str, shape: list[int], data: Any, words: str):
    with pytest.raises(RequestError) as raised:
        from_json(said("x", datatype, shape), data)
    assert raised.value.status == 400 and words in raised.value.message and raised.value.hint


def test_whole_floats_are_integers_and_null_among_floats_is_missing():
    assert_same(from_json(said("x", "UINT8", [3]), [0.0, 255, 7.0]), np.array([0, 255, 7], np.uint8))
    found = from_json(said("x", "FP32", [2]), [None, 1])
    assert np.isnan(found[0]) and found[1] == 1 and found.dtype == np.float32


def test_number_beyond_its_datatype_in_wider_contents_is_refused():
    with pytest.raises(RequestError, match=r"found 300 \(integer\) at \[1\]; INT8 is expected"):
        tensors.from_numbers(said("x", "INT8", [2]), [1, 300])
    with pytest.raises(RequestError, match="holds 1 values"):
        tensors.from_numbers(said("x", "FP32", [2]), [1.0])
