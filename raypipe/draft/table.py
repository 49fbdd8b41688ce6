"""A table -> a pipeline file: a network of fully connected layers, categories as vectors; a class or a number."""

from __future__ import annotations

from typing import Any

from raypipe.data.sample import Sample
from raypipe.draft import training
from raypipe.draft.classes import (
    SPLIT_WORDS,
    STRATIFIED,
    TEST_FRAC,
    TRAIN_FRAC,
    VAL_FRAC,
    accuracy_gate,
    learned,
    rare_line,
    rare_of,
    without,
)
from raypipe.draft.features import Features, embeddings, left_out_lines, sort_features, transforms
from raypipe.draft.target import Target, find_target, others_lines
from raypipe.draft.written import TRANSFORMS, Written, bad_rows, flow, item, some
from raypipe.errors import SpecError
from raypipe.records import ColumnProfile


def draft_table(sample: Sample, source: dict[str, Any], wanted: str | None) -> Written:
    """Args:
        source: the section of the file.
        wanted: the target, where the user named it.
    Raises:
        SpecError: no target can be found, or nothing to learn from.
    """
    target = find_target(sample.columns, wanted)
    words = {column.name: found for column in sample.columns if (found := _split_words(column)) is not None}
    words.pop(target.column.name, None)
    split_column = next(iter(words), None)
    aside = [target.column.name, *([split_column] if split_column else [])]
    features = sort_features(sample.columns, aside)
    for name, what in sample.left_out.items():
        features.left_out.setdefault(what, []).append(name)
    if not features.names:
        raise SpecError(
            f"beside the target '{target.column.name}' there is no column a model could learn from: "
            + "; ".join(f"{some(names)} ({why})" for why, names in features.left_out.items()),
            "name the target with --target, or write the pipeline file yourself",
        )
    num_train = int(TRAIN_FRAC * sample.about_rows)
    what = "class" if target.task == "classification" else "number"
    written = Written(f"A table -> a {what}, {target.column.name!r}.".replace("\n", " "))
    written.data = _data(sample, source, target, features, split_column, words)
    written.model, written.model_note = _model(features, num_train)
    has_val = split_column is None or bool(words[split_column]["val"])
    written.train = _train(num_train, has_val)
    written.gates = _gates(target)
    written.request = {name: sample.first[name] for name in features.names}
    written.guesses = ["target"]
    return written


def _data(
    sample: Sample,
    source: dict[str, Any],
    target: Target,
    features: Features,
    split_column: str | None,
    words: dict[str, dict[str, list[Any]]],
) -> list[str]:
    about = f"{sample.num_rows:,} rows"
    if not sample.is_all:
        about = f"about {sample.about_rows:,} rows; {sample.num_rows:,} were looked at"
    lines: list[str] = []
    if target.column.nulls:
        source = {**source, "where": [{"column": target.column.name, "op": "not_null"}]}
        lines.append(f"# {target.column.nulls:,} rows have no target and teach nothing")
    if rare := _rare(target, sample) if split_column is None else {}:
        source = {**source, "where": [without(target.column.name, rare)]}
        lines.append(rare_line(rare))
    lines.append(f"source: {flow(source, 4)} # {about}")
    note = f" # {target.note}" if target.note else ""
    lines += [f"target: {flow(target.column.name)}{note}"]
    lines += others_lines(target)
    lines += [f"task: {target.task} # guessed: {_why_task(target)}"]
    if features.left_out:
        lines += left_out_lines(features)
        lines += [f"features: {flow(features.names, 4)}"]
    lines += _split(target, split_column, words, sample)
    if sample.num_bad:
        lines.append(bad_rows(sample.num_bad, sample.num_rows, "rows"))
    if features.categories:
        lines += ["policy: {unknown_categories: ignore} # a category that train has not is no error"]
    if made := _transforms(features):
        lines += [TRANSFORMS, *made]
    return lines


def _rare(target: Target, sample: Sample) -> dict[Any, int]:
    """Classes of too few rows -> how many; none where that is not known of all.

    Raises:
        SpecError: no two classes are left.
    """
    column = target.column
    if target.task != "classification" or not sample.is_all or column.distinct != len(column.top):
        return {}
    counts = {top.value: top.count for top in column.top}
    return rare_of(counts, f"the target {column.name!r}", "rows", "name another target with --target")


def _transforms(features: Features) -> list[str]:
    if features.is_text:
        return _text_transforms(features)
    return _picture_transforms(features) or transforms(features)


def _why_task(target: Target) -> str:
    column = target.column
    if column.dtype in ("string", "bool"):
        return "text" if column.dtype == "string" else "true and false"
    if target.task == "classification":
        return f"{column.distinct} different whole numbers; for a quantity, regression"
    return f"{column.distinct if column.distinct is not None else 'more than 1,000'} different numbers"


def _split(target: Target, column: str | None, words: dict[str, dict[str, list[Any]]], sample: Sample) -> list[str]:
    if column is not None:
        section = {"kind": "column", "column": column, **words[column]}
        return [f"split: {flow(section, 4)} # guessed: this column says where a row goes"]
    if target.task == "classification":
        return [STRATIFIED]
    return [f"split: {flow({'val_frac': VAL_FRAC, 'test_frac': TEST_FRAC})}"]


def _split_words(column: ColumnProfile) -> dict[str, list[Any]] | None:
    """Which values of a column mean which split; None where they mean something else."""
    if column.dtype != "string" or column.distinct not in (2, 3) or column.nulls:
        return None
    found: dict[str, list[Any]] = {}
    for top in column.top:
        split = next((name for name, words in SPLIT_WORDS.items() if str(top.value).casefold() in words), None)
        if split is None or split in found:
            return None
        found[split] = [top.value]
    return {name: found.get(name, []) for name in SPLIT_WORDS} if {"train", "test"} <= found.keys() else None


def _text_transforms(features: Features) -> list[str]:
    lengths = features.texts[0].lengths
    words = max(16, min(256, round((lengths.max if lengths else 0) / 5)))
    tokens = {"kind": "tokens", "columns": [features.texts[0].name], "tokenizer": "word", "max_length": words}
    return [item({**tokens, "max_vocabulary": 8192, "lowercase": True})]


def _picture_transforms(features: Features) -> list[str]:
    picture = features.picture
    if picture is None:
        return []
    lines = [item({"kind": "normalize", "columns": [picture.name]})]
    if len(picture.shape) == 3 and picture.shape[2] <= 4:
        lines.append(item({"kind": "channels_first", "columns": [picture.name]}))
    return lines


def _model(features: Features, num_train: int) -> tuple[str, str]:
    if features.is_text:
        fields = {"kind": "transformer", "dim": 64, "num_layers": 1, "num_heads": 4, "dropout_frac": 0.1}
        return flow(fields), "reads the words of the text"
    picture = features.picture
    if picture is not None:
        return flow({"kind": "cnn", "channels": training.channels(min(picture.shape[:2])), "dropout_frac": 0.2}), ""
    width = 64 if num_train < 2_000 else 128 if num_train < 20_000 else 256
    fields = {"kind": "mlp", "hidden": [width, width], "dropout_frac": 0.1}
    vectors = embeddings(features)
    return flow({**fields, **({"embeddings": vectors} if vectors else {})}, 2), ""


def _train(num_train: int, has_val: bool) -> list[str]:
    epochs = training.epochs(num_train, num_steps=2_500 if has_val else 1_000, most=100 if has_val else 40)
    lines = [
        f"epochs: {epochs}",
        f"global_batch_size: {training.batch_rows(num_train)}",
        "optimizer: {kind: adamw, lr: 0.003, weight_decay: 0.1}",
        "schedule: {kind: cosine}",
    ]
    stopping = f"early_stopping: {{patience_epochs: {max(2, epochs // 4)}}}"
    return [*lines, f"{stopping} # the epoch with the least loss on val is kept"] if has_val else lines


def _gates(target: Target) -> list[str]:
    if target.task == "regression":
        return ["{metric: r2, min: 0.1} # guessed; always the mean: 0. Below it, nothing is registered"]
    shares = [top.count / max(1, target.column.counted) for top in target.column.top]
    most = shares[0]
    gates = [accuracy_gate(most)]
    if most > 0.8:
        least = 1 / max(2, target.column.distinct or 2)
        gates.append(f"{{metric: balanced_accuracy, min: {learned(least):g}}} # each class counts alike")
    return gates
