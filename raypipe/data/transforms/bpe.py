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
            before = list(pairwise(tokens[i]))
            tokens[i] = merged(tokens[i], best, num_base + len(merges))
            after = list(pairwise(tokens[i]))
            for pair in before:
                totals[pair] -= counts[i]
            for pair in after:
                totals[pair] += counts[i]
                holders[pair].add(i)
            changed.update(before, after)
        merges.append(best)
        for pair in changed:
            if totals[pair] > 0:
                heapq.heappush(heap, (-totals[pair], pair))
    return merges


def encode(word: Sequence[int], ranks: Mapping[Pair, int], num_base: int) -> list[int]:
    """The word's tokens: its pairs are merged in the order in which they were learnt."""
    tokens = list(word)
    while len(tokens) > 1:
        best = min(pairwise(tokens), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        tokens = merged(tokens, best, num_base + ranks[best])
    return tokens


def merged(tokens: Sequence[int], pair: Pair, token: int) -> list[int]:
    """The tokens with one in place of each occurrence of the pair, from the left."""
    found: list[int] = []
    i = 0
    while i < len(tokens):
        if i + 1 < len(tokens) and tokens[i] == pair[0] and tokens[i + 1] == pair[1]:
            found.append(token)
            i += 2
        else:
            found.append(tokens[i])
            i += 1
    return found
