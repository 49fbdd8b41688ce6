"""Pixels that are looked up are the bits that would be computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.testing.fakes import fit_columns
from tests.unit.data.transforms import transforms

SHAPE = (4, 5)
PIXELS = np.arange(260).astype(np.uint8).reshape(13, *SHAPE)  # every byte
IMAGE = Column(name="image", dtype="uint8", shape=SHAPE)
SCALED = {"kind": "scale", "columns": ["image"], "factor": 1 / 255, "offset": -0.3}
STANDARDIZED = {"kind": "standardize", "columns": ["image"]}


@pytest.mark.parametrize(
    ("specs", "is_looked_up"),
    [
        ([], True),
        ([SCALED], True),
        ([SCALED, {**SCALED, "factor": 3.0}], True),
        ([SCALED, STANDARDIZED], False),
        ([{**SCALED, "factor": 1e38}, SCALED], False),
    ],
    ids=["as they are", "scaled", "scaled twice", "by place", "beyond float32"],
)
def test_bytes_that_are_looked_up_are_the_bits_that_are_computed(specs: list[dict[str, Any]], is_looked_up: bool):
    fitted = fit_columns(transforms(*specs), (IMAGE,), [{"image": PIXELS % 250}])
    assert (fitted._byte_table((IMAGE,)) is not None) == is_looked_up, "and nothing is told of bytes no row holds"
    if specs and not is_looked_up and specs[0]["factor"] == 1e38:
        with np.errstate(over="ignore"), pytest.raises(DataError, match=r"'image' holds .* float32"):
            fitted.apply({"image": PIXELS}, (IMAGE,))
        return
    inputs = (IMAGE,)
    for rows in (PIXELS, PIXELS[:1], PIXELS[::2], PIXELS[:0], np.asfortranarray(PIXELS)):
        found = fitted.apply({"image": rows}, inputs)
        computed = fitted.apply({"image": rows}, [IMAGE])  # inputs that may change are not looked up
        assert found.dtype == np.float32 and found.shape == rows.shape and found.flags.writeable
        assert found.tobytes() == computed.tobytes()
    wider = fitted.apply({"image": PIXELS.astype(np.int64)}, inputs)
    assert wider.tobytes() == fitted.apply({"image": PIXELS}, inputs).tobytes()
    with pytest.raises(DataError, match="'image' is missing"):
        fitted.apply({"other": PIXELS}, inputs)


@pytest.mark.parametrize("column", [Column(name="image", dtype="uint8"), IMAGE.model_copy(update={"nullable": True})])
def test_single_bytes_and_those_with_gaps_are_computed(column: Column):
    fitted = fit_columns(transforms(SCALED), (column,), [{"image": np.arange(9, dtype=np.uint8)}])
    assert fitted._byte_table((column,)) is None
