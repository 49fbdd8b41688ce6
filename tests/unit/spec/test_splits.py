"""Splits and masks in a pipeline file: what is accepted, what older files keep, and which mix is refused where."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.errors import SpecError
from raypipe.spec.data import DataSpec
from raypipe.spec.files import check_files
from raypipe.spec.load import load_pipeline, parse_pipeline, with_values
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.schema import json_schema
from raypipe.spec.splits import HashSplit, TimeSplit

HEAD = "name: flowers\ndata:\n"
TAIL = "model: {kind: linear}\n"
OLD_DEFAULT = {"val_frac": 0.1, "test_frac": 0.2, "key": None, "salt": ""}


def text(split: str = "", *, more: str = "", source: str = "{format: csv, path: a.csv}") -> str:
    lines = [f"source: {source}", "target: y", *([f"split: {split}"] if split else []), *more.splitlines()]
    return HEAD + "".join(f"  {line}\n" for line in lines) + TAIL


def data(split: str = "", **fields: str) -> DataSpec:
    return parse_pipeline(text(split, **fields)).data


def test_split_without_a_kind_is_by_hash_and_keeps_its_fingerprint():
    assert data().split == data("{}").split == data("{kind: hash}").split == HashSplit()
    assert HashSplit().model_dump(mode="json") == OLD_DEFAULT
    assert HashSplit().fingerprint() == "236f129775aa97a5"
    keyed = data("{val_frac: 0.05, key: [a], salt: x}").split
    assert keyed.model_dump(mode="json") == OLD_DEFAULT | {"val_frac": 0.05, "key": ["a"], "salt": "x"}


def test_split_that_is_not_the_old_default_has_another_fingerprint():
    assert HashSplit(leaks="warn").fingerprint() != HashSplit().fingerprint()


@pytest.mark.parametrize(
    "split",
    [
        "{leaks: drop}",
        "{kind: stratified, by: site}",
        "{kind: grouped, group: [patient]}",
        "{kind: time, column: day, val_from: 2024-01-01, test_from: 2024-02-01 12:00:00}",
        "{kind: time, column: day, test_from: 7}",
        "{kind: column, column: part, val: []}",
        "{kind: directories, val: null}",
    ],
)
def test_split_of_any_kind_survives_being_written_and_read(split):
    spec = parse_pipeline(text(split))
    assert PipelineSpec.model_validate_json(spec.model_dump_json()) == spec
    assert with_values(spec, {"seed": 3}).data == spec.data


def test_split_of_a_time_takes_the_dates_that_yaml_makes():
    split = data("{kind: time, column: day, val_from: 2024-01-01, test_from: 2024-02-01 12:00:00}").split
    assert isinstance(split, TimeSplit)
    assert (split.val_from, split.test_from) == ("2024-01-01", "2024-02-01T12:00:00")
    assert (split.val_frac, split.test_frac, split.wanted) == (0.0, 0.0, ("train", "val", "test"))


def test_override_of_a_split_keeps_its_kind():
    assert parse_pipeline(text(), overrides=["data.split.val_frac=0.3"]).data.split == HashSplit(val_frac=0.3)
    grouped = parse_pipeline(text("{kind: grouped, group: [g]}"), overrides=["data.split.val_frac=0.3"]).data.split
    assert (grouped.kind, grouped.wanted) == ("grouped", ("train", "val", "test"))


def test_json_schema_knows_the_splits():
    assert {"HashSplit", "StratifiedSplit", "DirectoriesSplit", "MaskSpec"} <= set(json_schema()["$defs"])


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("{val_frac: 0}", ("train", "test")),
        ("{kind: time, column: t, test_from: 0}", ("train", "test")),
        ("{kind: column, column: t, test: []}", ("train", "val")),
        ("{kind: directories, val: null}", ("train", "test")),
    ],
)
def test_splits_that_must_hold_rows_follow_from_the_spec(split, wanted):
    assert data(split).wanted_splits == wanted


def test_ready_made_files_replace_their_shares():
    more = "val_source: {format: csv, path: v.csv}\ntest_source: {format: csv, path: t.csv}"
    found = data("{kind: stratified, salt: x}", more=more)
    assert (found.split.wanted, found.wanted_splits) == (("train",), ("train", "val", "test"))
    assert [(part.field, part.split) for part in found.parts()] == [
        ("source", None),
        ("val_source", "val"),
        ("test_source", "test"),
    ]


@pytest.mark.parametrize(
    ("source", "split", "places"),
    [
        ("{format: csv, path: d}", "{kind: directories}", ["d/train", "d/val", "d/test"]),
        ("{format: csv, path: ['s3://b/d/', e]}", "{kind: directories, val: null, test: null}",
         ["s3://b/d/train", "e/train"]),
        ("{format: parquet, path: 'd/{split}/*.parquet'}", "{kind: directories, val: null, test: eval}",
         ["d/train/*.parquet", "d/eval/*.parquet"]),
        ("{format: idx, images: '{split}-images.gz', labels: '{split}-labels.gz'}",
         "{kind: directories, val: null, test: t10k}",
         ["train-images.gz", "train-labels.gz", "t10k-images.gz", "t10k-labels.gz"]),
    ],
)  # fmt: skip
def test_directories_lead_to_a_source_a_split(source, split, places):
    parts = data(split, source=source).parts()
    assert [place for part in parts for place in part.source.places()] == places
    assert [part.split for part in parts] == list(dict.fromkeys(part.split for part in parts))


def test_directory_that_is_not_there_is_refused_with_line_and_field(tmp_path: Path):
    for name in ("train", "test"):
        (tmp_path / "d" / name).mkdir(parents=True)
    (tmp_path / "p.yaml").write_text(text("{kind: directories}", source="{format: csv, path: d}"))
    with pytest.raises(SpecError, match=r"p\.yaml:3: data\.source\.path: .*/d/val does not exist") as caught:
        check_files(load_pipeline(tmp_path / "p.yaml"))
    assert caught.value.message.count("\n") == 0


@pytest.mark.parametrize(
    ("split", "left"),
    [
        ("{key: [id]}", ["a", "day"]),
        ("{kind: stratified, by: a}", ["id", "a", "day"]),
        ("{kind: time, column: day, group: [id]}", ["a"]),
    ],
)
def test_features_left_out_are_all_but_what_the_split_knows_a_row_by(split, left):
    assert data(split).feature_names(["id", "a", "day", "y"]) == left


def test_features_left_out_are_without_masked_columns():
    masking = "masking: [{columns: [name], method: redact}]"
    assert data(more=masking).feature_names(["name", "a", "y"]) == ["a"]


@pytest.mark.parametrize(
    ("split", "more", "groups"),
    [
        ("{key: [id]}", "", ()),
        ("{key: [id]}", "test_source: {format: csv, path: t.csv}", ("id",)),
        ("{kind: grouped, group: [id]}", "", ()),
        ("{kind: time, column: t, group: [id]}", "", ("id",)),
        ("{kind: column, column: t}", "", ()),
    ],
)
def test_groups_are_watched_where_they_can_be_torn_apart(split, more, groups):
    assert data(split, more=more).watched_groups == groups


TEST_SOURCE = "test_source: {format: csv, path: t.csv}"
MASK = "masking: [{{columns: [a], method: {}}}]"
KEYED = "masking: [{columns: [a], method: hash, key_env: KEY}]"

BAD = {
    "unknown kind": ("{kind: stratify}", "", "p.yaml:5: data.split: kind is 'stratify', did you mean 'stratified'?"),
    "unknown field": ("{vall_frac: 1}", "", "p.yaml:5: data.split.vall_frac: unknown field, did you mean 'val_frac'?"),
    "field of another kind": (
        "{kind: stratified, key: [a]}", "",
        "p.yaml:5: data.split.key: unknown field; known here: by, kind, leaks, salt, test_frac, val_frac",
    ),
    "no rows for train": (
        "{val_frac: 0.5, test_frac: 0.5}", "",
        "p.yaml:5: data.split: val_frac=0.5 + test_frac=0.5 leaves no rows for train; keep the sum under 1",
    ),
    "time without a column": ("{kind: time}", "", "p.yaml:5: data.split.column: is missing; it must be given"),
    "column without a column": ("{kind: column}", "", "p.yaml:5: data.split.column: is missing; it must be given"),
    "wrong field of kind column": (
        "{kind: column, column: 3}", "", "p.yaml:5: data.split.column: found 3; input should be a valid string",
    ),
    "unknown policy": ("{leaks: ignore}", "", 'p.yaml:5: data.split.leaks: found "ignore"; must be one of fail, warn'),
    "group of nothing": ("{kind: grouped}", "", "p.yaml:5: data.split.group: is missing; it must be given"),
    "borders and shares": (
        "{kind: time, column: t, val_from: 3, val_frac: 0.1}", "",
        "p.yaml:5: data.split: val_from and test_from set the borders; leave val_frac and test_frac out",
    ),
    "borders out of order": (
        "{kind: time, column: t, val_from: 2024-02-01, test_from: 2024-01-01}", "",
        "p.yaml:5: data.split: val_from=2024-02-01 must be before test_from=2024-01-01",
    ),
    "borders of two kinds": (
        "{kind: time, column: t, val_from: 2024-02-01, test_from: 9}", "",
        "p.yaml:5: data.split: val_from=2024-02-01 and test_from=9: give two numbers or two times",
    ),
    "border that is no time": (
        "{kind: time, column: t, test_from: tomorrow}", "",
        "p.yaml:5: data.split: 'tomorrow' is no time; write it like 2024-01-31",
    ),
    "word of two splits": (
        "{kind: column, column: t, val: [test]}", "",
        "p.yaml:5: data.split: the value 'test' means both val and test; keep it in one",
    ),
    "folder of two splits": (
        "{kind: directories, val: test}", "", "p.yaml:5: data.split: two splits name the same folder: {'train': ",
    ),
    "test share and test_source": (
        "{test_frac: 0.2}", TEST_SOURCE,
        "p.yaml:2: data: test_source is the test split, so split.test_frac=0.2 must be 0 or left out",
    ),
    "test border and test_source": (
        "{kind: time, column: t, test_from: 3}", TEST_SOURCE,
        "p.yaml:2: data: test_source is the test split, so split.test_from must be null or left out",
    ),
    "test folder and test_source": (
        "{kind: directories}", TEST_SOURCE,
        "p.yaml:2: data: test_source is the test split, so split.test of kind: directories must be null",
    ),
    "folders of a glob": (
        "{kind: directories}", "source2", "p.yaml:2: data: split.kind: directories: 'd/*.csv' matches files, so mark",
    ),
    "classes of a regression": (
        "{kind: stratified}", "task: regression",
        "p.yaml:2: data: split.kind: stratified needs classes, but the target of task: regression has none",
    ),
    "time that is the target": (
        "{kind: time, column: y}", "", "p.yaml:2: data: split.column must not be the target 'y'",
    ),
    "word that is a feature": (
        "{kind: column, column: a}", "features: [a]",
        "p.yaml:2: data: 'a' says which split a row is in, so it must not be a feature",
    ),
    "masked target": (
        "", "masking: [{columns: [y], method: drop}]", "p.yaml:2: data: masking: 'y' is the target; the model has to",
    ),
    "dropped feature": (
        "", "features: [a]\n" + MASK.format("drop"), "p.yaml:2: data: masking: 'a' is a feature, but method: drop",
    ),
    "redacted feature": (
        "", "features: [a]\n" + MASK.format("redact"), "p.yaml:2: data: masking: 'a' is a feature, but method: redact",
    ),
    "hashed feature": (
        "", "features: [a]\n" + KEYED, "p.yaml:2: data: masking: 'a' is a feature, but what method: hash writes has no",
    ),
    "masked column in a transform": (
        "", "transforms: [{kind: standardize, columns: [a]}]\n" + KEYED, "p.yaml:2: data: masking: 'a' is a feature",
    ),
    "masked twice": ("", "masking: [{columns: [a, a], method: drop}]", "p.yaml:2: data: masking names ['a'] twice"),
    "masked time": (
        "{kind: time, column: a}", KEYED,
        "p.yaml:2: data: masking: the split reads the values of 'a', so it cannot be masked",
    ),
    "redacted key": (
        "{key: [a]}", MASK.format("redact"),
        "p.yaml:2: data: masking: the split needs to tell the values of 'a' apart, which method: redact",
    ),
    "expectation of a dropped column": (
        "", "expectations: [{kind: not_null, columns: [a]}]\n" + MASK.format("drop"),
        "p.yaml:2: data: masking: method: drop removes 'a', but an expectation reads it",
    ),
    "hash without a key": (
        "", MASK.format("hash"), "p.yaml:5: data.masking.0: method: hash needs key_env: the environment variable",
    ),
    "drop with a key": (
        "", "masking: [{columns: [a], method: drop, key_env: KEY}]",
        "p.yaml:5: data.masking.0: method: drop takes no key; leave key_env out",
    ),
    "no val rows for early stopping": (
        "{kind: column, column: t, val: []}", "train",
        "p.yaml:1: the file: train.early_stopping compares on validation rows, but data.split gives none",
    ),
    "no val rows for a plateau": (
        "{kind: column, column: t, val: []}", "plateau",
        "p.yaml:1: the file: train.schedule.kind: plateau compares on validation rows, but data.split gives none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_split_or_mask_that_does_not_fit_is_refused_with_line_and_field(case: str):
    split, more, message = BAD[case]
    if more == "source2":
        written = text(split, source="{format: csv, path: 'd/*.csv'}")
    else:
        train = {"train": "train: {early_stopping: {}}\n", "plateau": "train: {schedule: {kind: plateau}}\n"}.get(more)
        written = text(split) + train if train else text(split, more=more)
    with pytest.raises(SpecError) as caught:
        parse_pipeline(written, name="p.yaml")
    assert caught.value.message.startswith(message)


def test_key_written_into_the_file_is_not_shown():
    key = "c2VjcmV0LWtleS10aGF0LWlzLW5vdC1mb3ItdGhlLWZpbGU="
    with pytest.raises(SpecError, match=r"data\.masking\.0\.key_env: must be the name of an environment") as caught:
        data(more=f"masking: [{{columns: [a], method: hash, key_env: {key}}}]")
    assert key not in str(caught.value)


def test_masked_key_of_a_split_is_accepted_where_its_values_stay_apart():
    assert data("{kind: grouped, group: [a]}", more=KEYED).masked["a"].method == "hash"
