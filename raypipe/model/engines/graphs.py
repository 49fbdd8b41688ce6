"""CUDA graphs: every launch of a call recorded once, for a few numbers of rows, and replayed as one.

rows -> pinned buffer -> GPU buffer of the bucket -> replay -> pinned buffer -> answers

A bucket is a number of rows: 1, 2, 4, ...; a call uses the smallest that holds its rows, padded with zeros. On a CPU
the same buffers and padding are used and the network is called where a graph would be replayed, so that all of this but
the recording is tested without a GPU. Shape letters: N rows of a bucket.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raypipe.model.engines.base import AnsweringNetwork, Answers, Engine, Features, in_memory, on_device

MAX_BUCKET_ROWS = 256
"""As many rows as one call gathers by default; what is larger is called without a graph."""

NUM_WARM_CALLS = 3
"""Before recording: libraries choose their algorithms and get their memory in the first calls."""


@dataclass(frozen=True)
class Bucket:
    """The fixed memory of one recorded call.

    Attributes:
        host_rows, rows: features [N, *feature_shape], in pinned memory and where the network computes.
        answers, host_answers: [N, ...], the same the other way.
        replay: computes `answers` from `rows`.
    """

    host_rows: Tensor
    rows: Tensor
    answers: Tensor
    host_answers: Tensor
    replay: Callable[[], None]


class Graphs(Engine):
    """Replays the smallest recorded call that holds the rows.

    Args:
        max_rows: of the largest bucket, rounded up to a power of two.
    """

    def __init__(
        self, network: AnsweringNetwork, samples: Sequence[Features], *, max_rows: int = MAX_BUCKET_ROWS
    ) -> None:
        super().__init__(network, samples)
        self._is_cuda = network.device != "cpu"
        self._stream: Any = torch.cuda.Stream(network.device) if self._is_cuda else None
        self._pool: Any = torch.cuda.graph_pool_handle() if self._is_cuda else None
        self._busy = threading.Lock()  # the buffers are one call's at a time
        self._buckets: dict[int, Bucket] = {}
        feature_shape = samples[0].shape[1:]
        # The largest first: smaller ones then fit into memory that is there already.
        for num_rows in sorted(bucket_sizes(max_rows), reverse=True):
            self._buckets[num_rows] = self._record(num_rows, feature_shape)
        for features in samples:
            self(features)

    @torch.inference_mode()
    def __call__(self, features: Features) -> Answers:
        num_rows = len(features)
        bucket = self._buckets.get(bucket_of(num_rows))
        if bucket is None:  # none, or more than the largest
            return in_memory(self.network(on_device(features, self.network.device)))
        with self._busy:
            bucket.host_rows.numpy()[:num_rows] = features
            bucket.host_rows[num_rows:] = 0.0  # never another client's rows
            if not self._is_cuda:
                bucket.rows.copy_(bucket.host_rows)
                bucket.replay()
                bucket.host_answers.copy_(bucket.answers)
            else:
                with torch.cuda.stream(self._stream):
                    bucket.rows.copy_(bucket.host_rows, non_blocking=True)
                    bucket.replay()
                    bucket.host_answers.copy_(bucket.answers, non_blocking=True)
                self._stream.synchronize()
            return bucket.host_answers[:num_rows].numpy().copy()

    @torch.inference_mode()
    def _record(self, num_rows: int, feature_shape: tuple[int, ...]) -> Bucket:
        """Fixed memory for so many rows, and what computes in it."""
        host_rows = torch.zeros(num_rows, *feature_shape, pin_memory=self._is_cuda)
        rows = host_rows.to(self.network.device, copy=True)
        answers = self._warmed(rows)
        if self._is_cuda:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                answers = self.network(rows)
            replay = graph.replay
        else:

            def replay() -> None:
                answers.copy_(self.network(rows))

        host_answers = torch.empty(answers.shape, dtype=answers.dtype, pin_memory=self._is_cuda)
        return Bucket(host_rows, rows, answers, host_answers, replay)

    def _warmed(self, rows: Tensor) -> Tensor:
        if not self._is_cuda:
            return self.network(rows).clone()
        # Recording needs what runs before it to run on the same stream, and to be over.
        self._stream.wait_stream(torch.cuda.current_stream(self.network.device))
        with torch.cuda.stream(self._stream):
            for _ in range(NUM_WARM_CALLS):
                answers = self.network(rows)
        self._stream.synchronize()
        return answers


def bucket_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, ... up to the first that holds `max_rows`."""
    return [2**power for power in range(bucket_of(max_rows).bit_length())]


def bucket_of(num_rows: int) -> int:
    """The smallest power of two that holds so many rows."""
    return 1 << max(0, num_rows - 1).bit_length()
