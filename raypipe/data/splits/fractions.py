"""In given shares: of each class, of groups, of the time. The rows decide together where the borders are."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

import numpy as np

from raypipe.data.splits.base import TRAIN, Misfits, SplitKeys, SplitKind, SplitState, by_hash, hash_of
from raypipe.data.splits.content import Content
from raypipe.data.splits.ranks import Ranks
from raypipe.data.table.row_hash import Values, mix, seed
from raypipe.errors import DataError
from raypipe.spec.splits import FractionSplit, GroupedSplit, StratifiedSplit

MAX_STRATA = 10_000
"""Classes a stratified split takes; more are no classes."""


class Stratified(SplitKind):
    """Every class in its share in every split; inside a class by a hash of the row."""

    has_borders = True
    split: StratifiedSplit

    def order(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        return mix(row_hash_B ^ seed(self.split.salt)), []

    def stratum(self, values: Mapping[str, Values]) -> np.ndarray:
        return hash_of(values, [str(self.spec.stratify_by)])

    def borders(self, ranks: Ranks, content: Content) -> SplitState:
        split, by = self.split, str(self.spec.stratify_by)
        if not len(ranks.strata):
            return {}
        refuse_no_classes(len(ranks.strata), by)
        sizes = wanted_sizes(int(ranks.rows.sum()), split)
        test = _in_proportion(ranks.rows, sizes["test"])
        val = _in_proportion(ranks.rows - test, sizes["val"])
        for stratum, rows, different in zip(ranks.strata.tolist(), ranks.rows.tolist(), ranks.num_ends, strict=True):
            if different < len(split.wanted):
                same = "" if different == rows else f", {different} of them different"
                raise DataError(
                    f"data.split: class {ranks.names[stratum]} of '{by}' has {rows} row(s){same}; to be in "
                    f"{', '.join(split.wanted)} it needs {len(split.wanted)} different ones",
                    "give more rows of it, leave it out, set data.split.val_frac or test_frac to 0, or use kind: hash",
                )
        below = _below(ranks, {"test": test, "val": val}, split)
        return {"strata": {f"{stratum:016x}": pair for stratum, pair in zip(ranks.strata.tolist(), below, strict=True)}}

    def decided(self, keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState) -> np.ndarray:
        """A stratum that had no rows when the borders were drawn is cut as a hash split is."""
        assert keys.order is not None and keys.stratum is not None
        strata = state.get("strata", {})
        known = np.array([int(name, 16) for name in sorted(strata)] or [0], np.uint64)
        elsewhere = [int(f * 2**64) for f in (self.split.test_frac + self.split.val_frac, self.split.test_frac)]
        pairs = [strata.get(f"{number:016x}", elsewhere) for number in known.tolist()]
        place = np.minimum(np.searchsorted(known, keys.stratum), len(known) - 1)
        place = np.where(known[place] == keys.stratum, place, len(known))
        return by_hash(keys.order, *np.array([*pairs, elsewhere], np.uint64)[place].T)


class Grouped(SplitKind):
    """All rows of a group in one split, by a hash of the group."""

    has_borders = True
    split: GroupedSplit

    def order(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        return mix(hash_of(values, self.split.group) ^ seed(self.split.salt)), []

    def borders(self, ranks: Ranks, content: Content) -> SplitState:
        split, parts = self.split, self.split.wanted
        if not len(ranks.strata):
            return {}
        num_rows = int(ranks.rows[0])
        sizes = wanted_sizes(num_rows, split)
        if ranks.num_ends[0] < len(parts):
            raise DataError(
                f"data.split: the rows are of {ranks.num_ends[0]} group(s) of {split.group}; {', '.join(parts)} need "
                "one each",
                "group by columns with more values, or set data.split.val_frac or test_frac to 0",
            )
        large, large_rows = ranks.more_than(max(sizes.values()) if len(parts) > 1 else num_rows)
        others = ranks.without(large) if len(large) else ranks
        if others.rows[0] < sum(sizes.values()) or others.num_ends[0] < len(parts) - 1:
            held = ", ".join(f"{name} {size}" for name, size in sizes.items() if size)
            raise DataError(
                f"data.split: a group of {split.group} has {large_rows.max(initial=0)} of {num_rows} rows, and a group "
                f"is in one split; what is left cannot fill the splits as wanted ({held} rows)",
                "set data.split.val_frac or test_frac above the share of the group, group by columns with more values, "
                "or leave the group out",
            )
        # Where train has the large groups, val and test may take all the others.
        wanted = {name: np.array([size]) for name, size in sizes.items()}
        ((val_below, test_below),) = _below(others, wanted, split, spare=int(len(large) > 0))
        return {"val_below": val_below, "test_below": test_below, "train": large.tolist()}

    def decided(self, keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState) -> np.ndarray:
        assert keys.order is not None
        codes = by_hash(keys.order, np.uint64(state["val_below"]), np.uint64(state["test_below"]))
        codes[np.isin(keys.order, np.array(state["train"], np.uint64))] = TRAIN
        return codes


def wanted_sizes(num_rows: int, split: FractionSplit) -> dict[str, int]:
    """Rows of val and test, rounded up as scikit-learn does."""
    shares = {"val": split.val_frac, "test": split.test_frac}
    return {name: ceil(Fraction(str(share)) * num_rows) for name, share in shares.items()}


def refuse_no_classes(num_values: int, by: str) -> None:
    """Raise DataError when the column of a stratified split holds more values than classes can be."""
    if num_values > MAX_STRATA:
        raise DataError(
            f"data.split: '{by}' holds more than {MAX_STRATA} different values, which are no classes",
            "name a column of classes in data.split.by, or use kind: hash",
        )


def _below(ranks: Ranks, sizes: Mapping[str, np.ndarray], split: FractionSplit, spare: int = 0) -> list[list[int]]:
    """[val_below, test_below] of each stratum: test has the smallest orders, then val, then train."""
    first = [name for name in ("test", "val") if name in split.wanted]
    ends = dict(zip(first, ranks.cut([sizes[name] for name in first], spare), strict=True))
    test_below = ends.get("test", np.zeros(len(ranks.strata), np.uint64))
    return np.stack([ends.get("val", test_below), test_below], axis=1).tolist()


def _in_proportion(rows: np.ndarray, total: int) -> np.ndarray:
    """`total` rows over classes of so many rows: rounded down, then one more for those with the largest remainder."""
    exact = rows.astype(object) * total  # beyond 64 bits from 10^10 rows on
    share, left = (exact // int(rows.sum())).astype(np.int64), (exact % int(rows.sum())).astype(np.int64)
    share[np.argsort(-left, kind="stable")[: total - int(share.sum())]] += 1
    return share
