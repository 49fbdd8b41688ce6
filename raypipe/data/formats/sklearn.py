"""The small real data sets that scikit-learn carries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.base import Format
from raypipe.data.formats.datasource import ReadPart, read_group
from raypipe.data.formats.parts import Part, as_range
from raypipe.data.masking import UNMASKED, Masking
from raypipe.data.sources.listing import list_files
from raypipe.spec.sources import SklearnSource


class Sklearn(Format):
    """Rows in scikit-learn's order; they are here already: no task reads them."""

    slow_imports = ("sklearn.datasets",)

    def plan(
        self, source: SklearnSource, root: str, masking: Masking = UNMASKED, is_judged: bool = False
    ) -> tuple[Sequence[Part], ReadPart[Any]]:
        return [as_range(file) for file in list_files(source, root)], lambda part: [load(source.dataset)]

    def tables_in_memory(
        self,
        source: SklearnSource,
        root: str,
        parallelism: int | None,
        masking: Masking = UNMASKED,
        is_judged: bool = False,
    ) -> list[pa.Table]:
        (table,) = read_group(*self.plan(source, root), source.columns, source.where, masking, is_judged)
        num_blocks = min(parallelism or 1, table.num_rows)
        cuts = [table.num_rows * i // num_blocks for i in range(num_blocks + 1)]
        return [table.slice(a, b - a) for a, b in pairwise(cuts)]


def load(name: str) -> pa.Table:
    """One set: `digits` has `image` uint8 [8, 8] (0 to 16) and `label`; the others a column a feature and `target`.

    Feature names are scikit-learn's with `_` for everything that is no letter or digit.
    """
    from sklearn import datasets  # 1 s to import; other formats do not need it

    bundle = getattr(datasets, f"load_{name}")()
    if name == "digits":
        image_NHW = np.ascontiguousarray(bundle.images.astype(np.uint8))
        return pa.table({"image": ArrowTensorArray.from_numpy(image_NHW), "label": bundle.target})
    names = [re.sub(r"\W+", "_", str(column)).strip("_") for column in bundle.feature_names]
    features = {column: bundle.data[:, i] for i, column in enumerate(names)}
    return pa.table({**features, "target": bundle.target})
