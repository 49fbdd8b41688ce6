"""FAULTS T1: whoever starts one or three workers, and whether one is killed: one artifact. Two are a daily test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import faulty

pytestmark = [
    *(pytest.mark.chaos, pytest.mark.ray),
    *(pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)),
]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_worker_killed_either_way_gives_the_same_bits(tmp_path: Path, num_workers: int) -> None:
    digests = faulty.digests_of(faulty.trained_either_way(tmp_path, num_workers))
    assert len(digests) == 4 and len(set(digests.values())) == 1, digests
