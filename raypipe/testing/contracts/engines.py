"""What every engine must hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SHAPE = (6, 5)
SAMPLE_SIZES = (2, 1, 7, 33)
OTHER_SIZES = (3, 4, 16, 40, 300)
"""Rows of calls that nothing was prepared with; the last are more than CUDA graphs are recorded for."""


class EngineContract:
    """An engine answers as eager does, row for row, and what it gave back stays as it was.

    Args:
        name: key in raypipe.model.engines.ENGINES.
        device: where the network computes.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        import torch
        from torch import nn

        from raypipe.model.engines import ENGINES, AnsweringNetwork
        from raypipe.model.engines.eager import Eager
        from raypipe.model.tasks.classification import Classification

        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(30, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)]
        network = AnsweringNetwork(nn.Sequential(*layers).to(device).eval(), Classification.read_output, device=device)
        self._random = np.random.default_rng(0)
        self._eager = Eager(network, ())
        self._engine = ENGINES[name](network, [self._rows(num) for num in SAMPLE_SIZES])

    @classmethod
    def checks(cls) -> list[str]:
        """Names of all checks, for `pytest.mark.parametrize`."""
        return [name for name in vars(cls) if name.startswith("check_")]

    def check_same_answers(self) -> None:
        """Whatever the number of rows, to 1e-6, in float32 and one a row; the same again when asked again."""
        for num_rows in (*SAMPLE_SIZES, *OTHER_SIZES):
            rows = self._rows(num_rows)
            expected, found = self._eager(rows), self._engine(rows)
            assert found.shape == (num_rows, 3) and found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(self._engine(rows), found)

    def check_rows_alone(self) -> None:
        """A row's answer does not depend on who shares the call, nor on who was asked before."""
        rows = self._rows(9)
        whole = self._engine(rows)
        self._engine(np.full((16, *SHAPE), np.nan, np.float32))
        parts = [self._engine(rows[start : start + 3]) for start in (0, 3, 6)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6)

    def check_answers_stay(self) -> None:
        """Later calls change no earlier answer, and a call leaves its rows as they were."""
        rows = self._rows(4)
        before = rows.copy()
        first = self._engine(rows)
        kept = first.copy()
        self._engine(self._rows(4))
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(rows, before)

    def check_parts_of_arrays(self) -> None:
        """Rows may be a part of a larger array, as a large request is cut."""
        rows = self._rows(10)
        for part in (rows[3:7], rows[::2]):
            np.testing.assert_allclose(self._engine(part), self._eager(part.copy()), rtol=0, atol=1e-6)

    def _rows(self, num: int, shape: Sequence[int] = SHAPE) -> Any:
        return self._random.normal(size=(num, *shape)).astype(np.float32)
