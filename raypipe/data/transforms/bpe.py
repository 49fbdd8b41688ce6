"""Byte pair encoding: merges learnt from counted words, and words cut into tokens by them.

Source: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", over bytes, so
that every text can be written.  A token is an id: those below `num_base` are single bytes, `num_base + i` is merge i.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]

MIN_COUNT = 2
"""A pair that occurs once teaches nothing."""


def learn(words: Sequence[Sequence[int]], counts: Sequence[int], num_merges: int, num_base: int) -> list[Pair]:
    """The most frequent pair becomes a token, again and again; of equally frequent ones the smallest pair of ids.

    Args:
        words: each as the ids of its bytes.
        counts: how often each word occurs.
    Returns:
        At most `num_merges` pairs, in the order in which they are merged.
    """
    tokens = [list(word) for word in words]
    totals: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(tokens):
        for pair in pairwise(word):
            totals[pair] += counts[i]
            holders[pair].add(i)
    heap = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < num_merges:
        total, best = heapq.heappop(heap)
        if -total != totals[best]:
            continue  # it has changed since, and was put there again
        if -total < MIN_COUNT:
            break
        changed: set[Pair] = set()
        for i in holders.pop(best):
            tokens[i], gone, come = _merged(tokens[i], best, num_base + len(merges))
            for pair in gone:
                totals[pair] -= counts[i]
            for pair in come:
                totals[pair] += counts[i]
                holders[pair].add(i)
            changed.update(gone, come)
        merges.append(best)
        for pair in changed:
            if totals[pair] > 0:
                heapq.heappush(heap, (-totals[pair], pair))
    return merges


def _merged(tokens: list[int], pair: Pair, token: int) -> tuple[list[int], list[Pair], list[Pair]]:
    """The tokens with one in place of each occurrence of the pair, from the left; the pairs of neighbours that went
    with it; and those that came.

    All others stay.  A text without blanks has long words with many pairs each: to count them again at each merge took
    nearly all the time of learning.
    """
    found: list[int] = []
    gone: list[Pair] = []
    come: list[Pair] = []
    last, start, end = len(tokens) - 1, 0, 0  # what is before `end` is in `found`
    while (i := _index(tokens, pair[0], start, last)) >= 0:
        start = i + 1
        if tokens[i + 1] != pair[1]:
            continue
        if i > end:
            gone.append((tokens[i - 1], tokens[i]))
            if end:
                come.append((token, tokens[end]))
            found += tokens[end:i]
        if found:
            come.append((found[-1], token))
        found.append(token)
        gone.append(pair)
        start = end = i + 2
        if end <= last:
            gone.append((tokens[i + 1], tokens[end]))
    if 0 < end <= last:
        come.append((token, tokens[end]))
    return found + tokens[end:], gone, come


def _index(tokens: list[int], token: int, start: int, stop: int) -> int:
    """The first place of a token in [start, stop); -1 where there is none."""
    try:
        return tokens.index(token, start, stop)
    except ValueError:
        return -1


def encode(word: Sequence[int], ranks: Mapping[Pair, int], num_base: int) -> list[int]:
    """The word's tokens: its pairs are merged in the order in which they were learnt, each from the left.

    One at a time: pairs that a merge brings were learnt after it, so what is left of a pair still comes first.
    """
    tokens, never = list(word), len(ranks)
    rank = [ranks.get(pair, never) for pair in pairwise(tokens)]
    while rank and (best := min(rank)) < never:
        i = rank.index(best)
        tokens[i : i + 2] = [num_base + best]
        del rank[i]
        if i:
            rank[i - 1] = ranks.get((tokens[i - 1], tokens[i]), never)
        if i < len(rank):
            rank[i] = ranks.get((tokens[i], tokens[i + 1]), never)
    return tokens
