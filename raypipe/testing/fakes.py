"""Fakes at our seams: a store in memory, a clock that only moves when told, a silent run context, a tiny dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from obstore.store import MemoryStore as _Memory

from raypipe.data.formats.text_windows import windows as windows_of
from raypipe.data.next_tokens import language_of, read_shape
from raypipe.data.shards import tensor_array, to_bytes
from raypipe.data.shuffle import target as statistics_of
from raypipe.data.table.names import ROW_ID
from raypipe.data.target_text import language_of_target, without_target
from raypipe.data.transforms import FittedTransforms
from raypipe.data.transforms.fitting import contributions, fit
from raypipe.records import (
    Column,
    DatasetVersion,
    LabelSets,
    Reading,
    RowWeights,
    Shard,
    Signature,
    Split,
    TargetStatistics,
)
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.data import Task
from raypipe.spec.language import ALL_CHARACTERS
from raypipe.spec.sequences import TargetTokens
from raypipe.spec.sources import TextWindowsSource
from raypipe.spec.text_transforms import TokensTransform
from raypipe.spec.transforms import BagOfWordsTransform, OneHotTransform, Transform
from raypipe.storage import Store, layout
from raypipe.storage.objects import ObjectStore


class MemoryStore(ObjectStore):
    """A Store in this process's memory, with real conditional writes."""

    def __init__(self) -> None:
        super().__init__("memory:", _Memory())


class FakeClock:
    """Seconds that pass only by `advance`."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, elapsed_s: float) -> None:
        self.now += elapsed_s


def run_context(store: Store, *, run_id: str = "rtest", code_dir: Path | None = None, seed: int = 0) -> RunContext:
    """A context that prints nothing."""
    return RunContext(run_id=run_id, store=store, progress=Progress(run_id, stream=None), code_dir=code_dir, seed=seed)


def fit_columns(
    transforms: Sequence[Transform], inputs: Sequence[Column], shards: Sequence[Mapping[str, np.ndarray]]
) -> FittedTransforms:
    """`fit` over shards that are in memory: column name -> values [B, *shape] each."""
    return fit(transforms, inputs, lambda before, group: [contributions(before, group, s, inputs) for s in shards])


def tiny_dataset(
    store: Store,
    columns: Mapping[str, np.ndarray],
    target: np.ndarray,
    *,
    task: Task = "classification",
    transforms: Sequence[Transform] = (),
    weight: np.ndarray | None = None,
    lists: Collection[str] = (),
    num_val: int = 0,
    num_test: int = 0,
    rows_per_shard: int = 1000,
    name: str = "tiny",
) -> DatasetVersion:
    """A dataset version made from arrays without Ray: the first rows are train, then val, then test.

    Args:
        columns: raw features [B, *shape]; text as object arrays.
        lists: columns of lists of texts, as table/text_lists.py keeps them.
        target: [B]; labels, or floats for regression, or texts of labels with `;` between them; of several targets
            [B, T], named y0, y1 and so on.
        transforms: fitted on the train rows.
        weight: how much each row counts, [B]; None: all alike.
    """
    inputs = tuple(
        Column(name=n, dtype=_dtype(values), shape=values.shape[1:], is_list=n in lists)
        for n, values in columns.items()
    )
    num_train = len(target) - num_val - num_test
    bounds = {"train": (0, num_train), "val": (num_train, num_train + num_val), "test": (num_train + num_val, None)}
    targets = {"y": target} if target.ndim == 1 else {f"y{i}": values for i, values in enumerate(target.T)}
    stored = {**{n: _arrow(v) for n, v in columns.items()}, **targets, **({} if weight is None else {"w": weight})}
    table = pa.table({ROW_ID: np.arange(len(target), dtype=np.uint64), **stored})
    digest = hashlib.sha256(to_bytes(table)).hexdigest()
    fitted = fit_columns(transforms, inputs, [{n: values[:num_train] for n, values in columns.items()}])
    version = hashlib.sha256(f"{digest}{bounds}{rows_per_shard}{fitted.state()}".encode()).hexdigest()[:16]
    splits: dict[str, Split] = {}
    for split, (start, stop) in bounds.items():
        rows = table.slice(start, None if stop is None else stop - start)
        splits[split] = _write_split(store, partial(layout.shard, name, version, split), rows, rows_per_shard)
    classes = tuple(np.unique(target).tolist()) if task == "classification" else None
    label_sets = None
    if task == "multi_label":
        label_sets = LabelSets(separator=";" if target.ndim == 1 else None, threshold=0.5)
        found = {label for text in target if target.ndim == 1 for label in text.split(";") if label}
        classes = tuple(sorted(found)) if target.ndim == 1 else tuple(targets)
    weights = None
    if weight is not None:
        sums = {
            split: float(weight[start:stop].sum()) for split, (start, stop) in bounds.items() if splits[split].shards
        }
        labels = classes if classes is not None and task == "classification" else ()
        of_classes = tuple(float(weight[:num_train][target[:num_train] == label].sum()) for label in labels)
        weights = RowWeights(column="w", sums=sums, of_classes=of_classes or None)
    return DatasetVersion(
        name=name,
        version=version,
        signature=Signature(
            inputs=inputs,
            task=task,
            target="y" if target.ndim == 1 else tuple(targets),
            classes=classes,
            label_sets=label_sets,
        ),
        splits=splits,
        transforms=fitted.state(),
        feature_shape=fitted.apply({n: values[:1] for n, values in columns.items()}, inputs).shape[1:],
        content_fingerprint=digest[:16],
        target_statistics=_statistics(target[:num_train]) if task == "regression" and num_train else None,
        weights=weights,
    )


def _statistics(target: np.ndarray) -> TargetStatistics | tuple[TargetStatistics, ...]:
    if target.ndim == 1:
        return statistics_of.finish([statistics_of.part(target.astype(np.float64))])
    return tuple(statistics_of.finish([statistics_of.part(each.astype(np.float64))]) for each in target.T)


def _write_split(store: Store, key_of: Callable[[int], str], rows: pa.Table, rows_per_shard: int) -> Split:
    shards: list[Shard] = []
    for start in range(0, len(rows), rows_per_shard):
        part = rows.slice(start, rows_per_shard)
        data, key = to_bytes(part), key_of(len(shards))
        store.write(key, data)
        digest = hashlib.sha256(data).hexdigest()
        shards.append(Shard(key=key, num_rows=len(part), size_bytes=len(data), sha256=digest))
    return Split(num_rows=len(rows), shards=tuple(shards))


def _arrow(values: np.ndarray) -> pa.Array:
    return tensor_array(values) if values.ndim > 1 else pa.array(values)


def _dtype(values: np.ndarray) -> str:
    return "string" if values.dtype == object else values.dtype.name


def tiny_nested(store: Store, *, name: str = "nested") -> DatasetVersion:
    """A regression on twelve rows of JSON lines, three of them test: number and text in objects, a list of texts."""
    columns = {
        "user.age": np.arange(12.0),
        "user.home.city": np.array(["Bonn", "Rome"] * 6, object),
        "tags": np.array(['["a"]', '["a","b c"]', "[]"] * 4, object),
    }
    transforms = [
        OneHotTransform(kind="one_hot", columns=["user.home.city"]),
        BagOfWordsTransform(kind="bag_of_words", columns=["tags"]),
    ]
    dataset = tiny_dataset(
        store,
        columns,
        np.arange(12.0),
        task="regression",
        transforms=transforms,
        lists=["tags"],
        num_test=3,
        name=name,
    )
    signature = dataset.signature.model_copy(update={"reading": Reading(format="jsonl"), "extra_columns": "error"})
    return dataset.model_copy(update={"signature": signature})


def tiny_text(
    store: Store,
    text: str,
    *,
    context_length: int = 8,
    num_val: int = 2,
    num_test: int = 2,
    name: str = "text",
    merges: Sequence[tuple[int, int]] | None = None,
    tokenizer: Literal["char", "byte", "bpe"] = "char",
) -> DatasetVersion:
    """A dataset version for a language model, as `tiny_dataset`: the last windows of the text are test, those before
    val.

    Args:
        merges: with `bpe`, what was learned.
    """
    most = 258 + len(merges) if merges is not None else None
    source = TextWindowsSource(
        format="text_windows",
        path="t.txt",
        context_length=context_length,
        tokenizer=tokenizer,
        max_vocabulary=most,
        merges=None if merges is None else list(merges),
    )
    windows = [window for window, _ in windows_of([text], source)]
    num_train = len(windows) - num_val - num_test
    inputs = (Column(name="text", dtype="string"),)
    tokens = TokensTransform(
        kind="tokens",
        columns=["text"],
        tokenizer=tokenizer,
        max_length=context_length + 1,
        max_vocabulary=ALL_CHARACTERS if tokenizer == "char" else most,
        merges=source.merges,
    )
    values = np.array(windows, object)
    fitted = fit_columns([tokens], inputs, [{"text": values[:num_train]}])
    signature = Signature(inputs=inputs, task="language_model", target="text")
    table = pa.table({ROW_ID: np.arange(len(windows), dtype=np.uint64), "text": pa.array(windows, pa.string())})
    bounds = {"train": (0, num_train), "val": (num_train, num_val), "test": (num_train + num_val, num_test)}
    version = hashlib.sha256(f"{to_bytes(table).hex()}{bounds}".encode()).hexdigest()[:16]
    splits = {
        split: _write_split(store, partial(layout.shard, name, version, split), table.slice(*rows), 1000)
        for split, rows in bounds.items()
    }
    return DatasetVersion(
        name=name,
        version=version,
        signature=signature.model_copy(update={"language": language_of(signature, fitted)}),
        splits=splits,
        transforms=fitted.state(),
        feature_shape=(context_length,),
        content_fingerprint=version,
    )


def tiny_pairs(
    store: Store,
    pairs: Sequence[tuple[str, str]],
    *,
    source_length: int = 8,
    target: TargetTokens | None = None,
    tokenizer: Literal["char", "byte"] = "char",
    num_val: int = 2,
    num_test: int = 2,
    name: str = "pairs",
) -> DatasetVersion:
    """A dataset version from sequence to sequence, as `tiny_dataset`: the columns are `source` and `y`.

    Args:
        target: how targets are written; unset: up to 8 characters.
        tokenizer: of the sources.
    """
    target = target or TargetTokens(max_length=8)
    inputs = (Column(name="source", dtype="string"),)
    tokens = TokensTransform(
        kind="tokens",
        columns=["source"],
        tokenizer=tokenizer,
        max_length=source_length,
        refuse=["empty", "too_long", "unknown"],
        max_vocabulary=100 if tokenizer == "char" else None,
    )
    sources, targets = (np.array(column, object) for column in zip(*pairs, strict=True))
    num_train = len(pairs) - num_val - num_test
    both = (*inputs, Column(name="y", dtype="string"))
    fitted = fit_columns([tokens, target.of("y")], both, [{"source": sources[:num_train], "y": targets[:num_train]}])
    signature = Signature(
        inputs=inputs,
        task="sequence_to_sequence",
        target="y",
        language=language_of_target(target, "y", fitted),
    )
    table = pa.table({ROW_ID: np.arange(len(pairs), dtype=np.uint64), "source": sources, "y": targets})
    bounds = {"train": (0, num_train), "val": (num_train, num_val), "test": (num_train + num_val, num_test)}
    version = hashlib.sha256(f"{to_bytes(table).hex()}{bounds}{target}{tokens}".encode()).hexdigest()[:16]
    return DatasetVersion(
        name=name,
        version=version,
        signature=signature,
        splits={
            split: _write_split(store, partial(layout.shard, name, version, split), table.slice(*rows), 1000)
            for split, rows in bounds.items()
        },
        transforms=without_target(fitted, "y"),
        feature_shape=read_shape(signature, (source_length,)),
        content_fingerprint=version,
    )
