"""The small real data sets that scikit-learn carries."""

from __future__ import annotations

import re
from importlib.metadata import version
from itertools import pairwise

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.extensions import ArrowTensorArray

from raypipe.data.formats.reading import NO_MASKING, Masking, read_group
from raypipe.data.sources.files import SourceFile
from raypipe.spec.sources import SklearnSource


def files(source: SklearnSource, root: str) -> list[SourceFile]:
    """One entry that stands for the bundled set; its tag is scikit-learn's version."""
    del root  # bundled: nothing to resolve
    return [SourceFile(f"sklearn/{source.dataset}", "", 0, version("scikit-learn"))]


def read(source: SklearnSource, root: str, parallelism: int | None, masking: Masking = NO_MASKING) -> ray.data.Dataset:
    """Rows in scikit-learn's order; blocks are put straight into Ray, which starts no reading task."""
    (table,) = read_group(
        files(source, root), lambda file: [load(source.dataset)], source.columns, source.where, masking
    )
    num_blocks = min(parallelism or 1, table.num_rows)
    cuts = [table.num_rows * i // num_blocks for i in range(num_blocks + 1)]
    return ray.data.from_blocks([table.slice(a, b - a) for a, b in pairwise(cuts)])


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
