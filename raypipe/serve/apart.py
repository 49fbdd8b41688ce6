"""Requests that are asked apart from the others: their rows failed the model before, or other rows of their caller did.

Finding a bad row in its group takes calls that everybody waits for. It is found once; what comes after it from the same
caller shares calls only with its like, and these get a small part of the time while others ask.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.model.predictions import Predictions
from raypipe.serve.client_header import CLIENT

Features = NDArray[np.float32]
"""What the network reads, [B, *feature_shape]."""

REMEMBERED = 256
"""Requests that failed the model, lately, by which the same are known when they come again; and as many callers."""

GOOD_IN_A_ROW = 32
"""Answers after which a caller whose rows failed the model shares calls with others again. Finding a bad row among 64
takes some dozen calls; so seldom, they are no loss."""

SHARE = 1 / 32
"""Of the time of calls for the others, what calls for these may take while there are others."""


def caller_of(headers: Mapping[bytes, bytes], key: str) -> Hashable:
    """Who asks, as far as can be told: a connection, and whose key.

    Args:
        headers: of the request, names in lower case.
        key: name of the key that the request came with; may be empty.
    Returns:
        None where nothing is known.
    """
    end = headers.get(CLIENT)
    return None if end is None and not key else (key, end)


@dataclass(slots=True)
class Waiting:
    """Rows of one request, until they are answered.

    Attributes:
        deadline: by the event loop's clock.
        of: who asks; None: unknown.
        failed_before: whether the same rows did.
    """

    features: Features
    answer: asyncio.Future[Predictions]
    deadline: float
    of: Hashable = None
    failed_before: bool = False


class Apart:
    """Who failed lately, those that wait apart for that, and the time they have.

    Attributes:
        num_rows: that wait here and have not been asked.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self._rows: dict[Hashable, None] = {}  # hashes of features that failed, the oldest first
        self._callers: dict[Hashable, int] = {}  # and how many of their answers must be good until they are trusted
        self._waiting: deque[Waiting] = deque()
        self._groups: deque[list[Waiting]] = deque()
        self._saved_s = 0.0
        self._others_until = 0.0

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting or self._groups)

    def is_for(self, ask: Waiting) -> bool:
        """Whether it must wait here; notes why."""
        ask.failed_before = bool(self._rows) and _hash(ask) in self._rows
        return ask.failed_before or ask.of in self._callers

    def add(self, ask: Waiting) -> None:
        """Let it wait here."""
        self._waiting.append(ask)
        self.num_rows += len(ask.features)

    def failed(self, ask: Waiting) -> None:
        """Remember rows that failed the model by themselves, and whose they are."""
        _add(self._rows, _hash(ask), None)
        if ask.of is not None:
            _add(self._callers, ask.of, GOOD_IN_A_ROW)

    def answered(self, ask: Waiting) -> None:
        """Trust who is answered, in time."""
        if ask.failed_before:
            self._rows.pop(_hash(ask), None)
        if ask.of in self._callers:
            self._callers[ask.of] -= 1
            if not self._callers[ask.of]:
                del self._callers[ask.of]

    def others_took(self, seconds: float, now: float) -> None:
        """A call for the others has ended. They may come again within the time it took: who asks in turn does."""
        self._saved_s = min(self._saved_s + SHARE * seconds, seconds)
        self._others_until = now + seconds

    def head(self, most_rows: int) -> list[Waiting]:
        """The next group; rows that failed before are one by themselves, and others share one with their caller's."""
        if not self._groups:
            self._groups.append(self._take(most_rows))
        self._groups[0] = [ask for ask in self._groups[0] if not ask.answer.done()]
        return self._groups[0]

    def wait_s(self, cost_s: float, now: float) -> float:
        """How long the head must still wait, unless others are answered before.

        Args:
            cost_s: what its call is expected to take.
        """
        return 0.0 if cost_s <= self._saved_s else max(0.0, self._others_until - now)

    def taken(self, seconds: float, left: list[list[Waiting]]) -> None:
        """The call for the head has ended; what is left of it is asked one call at a time, too."""
        self._groups.popleft()
        self._groups.extend(left)
        self._saved_s = max(0.0, self._saved_s - seconds)

    def _take(self, most_rows: int) -> list[Waiting]:
        group = [self._waiting.popleft()]
        num_rows = len(group[0].features)
        while self._waiting and not group[0].failed_before and group[0].of is not None:
            ask = self._waiting[0]
            num_rows += len(ask.features)
            if ask.of != group[0].of or ask.failed_before or num_rows > most_rows:
                break
            group.append(self._waiting.popleft())
        self.num_rows -= sum(len(ask.features) for ask in group)
        return group


def _hash(ask: Waiting) -> int:
    return hash(ask.features.tobytes())


def _add(lately: dict[Hashable, Any], key: Hashable, value: Any) -> None:
    """Put it last; the oldest goes where there are too many."""
    lately.pop(key, None)
    lately[key] = value
    if len(lately) > REMEMBERED:
        del lately[next(iter(lately))]
