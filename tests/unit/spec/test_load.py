"""Pipeline files that are wrong: every message names file, line and field, what was found and what must hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from raypipe.errors import SpecError
from raypipe.spec.files import check_files
from raypipe.spec.load import load_pipeline, parse_pipeline, with_values
from raypipe.spec.optim import ConstantSchedule

GOOD = """\
name: flowers
data:
  source: {format: sklearn, dataset: iris}
  target: target
model:
  kind: linear
train:
  epochs: 3
"""

BAD = {
    "misspelt field": (
        GOOD.replace("epochs: 3", "epoch: 3"),
        "p.yaml:8: train.epoch: unknown field, did you mean 'epochs'?; known here: ",
    ),
    "wrong type": (
        GOOD.replace("epochs: 3", "epochs: many"),
        'p.yaml:8: train.epochs: found "many"; input should be a valid integer',
    ),
    "out of range": (
        GOOD.replace("epochs: 3", "epochs: 0"),
        "p.yaml:8: train.epochs: found 0; input should be greater than or equal to 1",
    ),
    "missing field": (
        GOOD.replace("  target: target\n", ""),
        "p.yaml:2: data.target: is missing; it must be given",
    ),
    "unknown model": (
        GOOD.replace("kind: linear", "kind: liner"),
        "p.yaml:5: model: kind is 'liner', did you mean 'linear'?; must be one of linear, mlp, cnn, resnet, audio_cnn, "
        "transformer, gpt, encoder_decoder, import",
    ),
    "unknown data set": (
        GOOD.replace("iris", "irises"),
        "p.yaml:3: data.source.dataset: found \"irises\", did you mean 'iris'?; "
        "must be one of digits, iris, wine, breast_cancer, diabetes",
    ),
    "name that is no key": (
        GOOD.replace("name: flowers", "name: a..b"),
        "p.yaml:1: name: found 'a..b'; must be 1 to 63 of a-z 0-9 . _ - , start with a letter or digit, and not hold",
    ),
    "model name that is no key": (
        GOOD + "registry: {model: Flowers}\n",
        "p.yaml:9: registry.model: found 'Flowers'; must be 1 to 63 of a-z",
    ),
    "alias that reads like a version": (
        GOOD + "registry:\n  alias: '7'\n",
        "p.yaml:10: registry.alias: found '7', which would read like a version number; use a name, e.g. champion",
    ),
    "alias that is no key": (
        GOOD + "registry: {alias: a..b}\n",
        "p.yaml:9: registry.alias: found 'a..b'; must be 1 to 63 of a-z",
    ),
    "batch that does not split": (
        GOOD + "  num_workers: 3\n  global_batch_size: 128\n",
        "p.yaml:7: train: global_batch_size=128 does not split over num_workers=3; use 129",
    ),
    "elastic workers without a most": (
        GOOD + "  num_workers: {min: 2}\n",
        "p.yaml:9: train.num_workers.max: is missing; it must be given",
    ),
    "elastic workers with a field unknown": (
        GOOD + "  num_workers: {min: 2, max: 8, maxx: 9}\n",
        "p.yaml:9: train.num_workers.maxx: unknown field, did you mean 'max'?; known here: grow_after_s, max, min",
    ),
    "elastic workers, fewest more than most": (
        GOOD + "  num_workers: {min: 9, max: 8}\n",
        "p.yaml:7: train: num_workers: min=9 is more than max=8; it must not be",
    ),
    "elastic workers whose most does not split the batch": (
        GOOD + "  num_workers: {min: 2, max: 7}\n",
        "p.yaml:7: train: global_batch_size=128 does not split over num_workers.max=7; use 133",
    ),
    "elastic workers of Ray Train": (
        GOOD + "  num_workers: {min: 2, max: 8}\n  trainer: ray_train\n",
        "p.yaml:7: train: trainer: ray_train keeps a fixed number of workers; leave trainer out where num_workers is",
    ),
    "elastic workers in a search": (
        GOOD + "  num_workers: {min: 2, max: 8}\n"
        "tune: {num_trials: 2, metric: val_loss, space: {train.epochs: {choice: [1, 2]}}}\n",
        "p.yaml:1: the file: tune: trials are compared, so each trains on a fixed number of workers; write it into "
        "train.num_workers, e.g. 8",
    ),
    "metric of another task": (
        GOOD + "evaluate: {gates: [{metric: rmse, max: 1}]}\n",
        "p.yaml:1: the file: evaluate.gates: 'rmse' is not a metric of classification; use one of "
        "['accuracy', 'precision_macro', 'recall_macro', 'f1_macro', 'balanced_accuracy', 'mcc', 'log_loss', "
        "'top_5_accuracy', 'roc_auc', 'pr_auc', 'expected_calibration_error']",
    ),
    "plateau of a metric of another task": (
        GOOD + "  schedule: {kind: plateau, metric: val_rmse}\n",
        "p.yaml:1: the file: train.schedule.metric: 'val_rmse' is not a metric of classification; use one of "
        "['val_loss', ",
    ),
    "step that names no function": (
        GOOD + "  step: ../steps.py:step\n",
        "p.yaml:9: train.step: found '../steps.py:step'; must be model.py:build or nets/model.py:build",
    ),
    "micro batches of no rows": (
        GOOD + "  micro_batch_rows: 0\n",
        "p.yaml:9: train.micro_batch_rows: found 0; ",
    ),
    "precision that is none": (
        GOOD + "  precision: bf16\n",
        'p.yaml:9: train.precision: found "bf16"',
    ),
    "scaled classes": (
        GOOD + "  target_transform: log\n",
        "p.yaml:1: the file: train.target_transform: log needs data.task: regression; classes are not numbers to scale",
    ),
    "scaled target": (
        GOOD.replace(
            "  target: target\n",
            "  target: y\n  task: regression\n  transforms:\n    - {kind: standardize, columns: [x, y]}\n",
        ),
        "p.yaml:2: data: transforms (standardize) names the target 'y', but transforms change features alone; it is "
        "standardized in training by itself (train.target_transform: standardize), so leave it out",
    ),
    "logarithm of the target among the features": (
        GOOD.replace(
            "  target: target\n",
            "  target: y\n  task: regression\n  features: [x]\n  transforms:\n    - {kind: log, columns: [y]}\n",
        ),
        "p.yaml:2: data: transforms (log) names the target 'y', but transforms change features alone; to train on its "
        "logarithm set train.target_transform: log",
    ),
    "imputed target": (
        GOOD.replace("  target: target\n", "  target: y\n  transforms:\n    - {kind: impute, columns: [y]}\n"),
        "p.yaml:2: data: transforms (impute) names the target 'y', but transforms change features alone; a row without "
        "a target teaches nothing and is a bad row, see data.bad_rows.max_frac",
    ),
    "trials whose losses are on two scales": (
        GOOD.replace("  target: target\n", "  target: y\n  task: regression\n")
        + "tune: {space: {train.target_transform: {choice: [auto, log]}}}\n",
        "p.yaml:1: the file: tune.metric: val_loss is not comparable between trials that differ in "
        "train.target_transform; compare them by val_rmse, val_mae or val_r2",
    ),
    "trials whose losses are of two kinds": (
        GOOD.replace("  target: target\n", "  target: y\n  task: regression\n")
        + "tune: {space: {train.loss: {choice: [mse, mae]}}}\n",
        "p.yaml:1: the file: tune.metric: val_loss is not comparable between trials that differ in train.loss",
    ),
    "search outside its bounds": (
        GOOD + "tune:\n  space:\n    train.epochs: {int_uniform: [0, 3]}\n",
        "p.yaml:11: tune.space.train.epochs: train.epochs=0: train.epochs: found 0; "
        "input should be greater than or equal to 1",
    ),
    "field twice": (GOOD + "train: {}\n", "p.yaml:9: train appears twice; keep one"),
    "not YAML": ("name: [1\ndata: 2\n", "p.yaml:2: not valid YAML: did not find expected ',' or ']'"),
    "a date that is none": (GOOD + "seed: 2024-99-99\n", "p.yaml: not valid YAML: month must be in 1..12"),
    "empty": ("", "p.yaml: found nothing; a pipeline file is a mapping with name, data and model"),
    "a list": ("- 1\n", "p.yaml: found a list; a pipeline file is a mapping with name, data and model"),
}


@pytest.mark.parametrize("case", BAD)
def test_pipeline_file_that_is_wrong_is_refused_with_line_and_field(case: str):
    text, message = BAD[case]
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert caught.value.message.startswith(message)


def test_search_over_scalings_by_a_metric_in_the_targets_unit_is_taken():
    text = GOOD.replace("  target: target\n", "  target: y\n  task: regression\n")
    space = "{space: {train.target_transform: {choice: [none, standardize, log]}}, metric: val_rmse}"
    assert parse_pipeline(f"{text}tune: {space}\n", name="p.yaml").tune is not None
    same_loss = "{space: {train.target_transform: {choice: [none, standardize]}}}"
    assert parse_pipeline(f"{text}tune: {same_loss}\n", name="p.yaml").tune is not None


def test_pipeline_file_with_several_problems_names_all_of_them():
    text = GOOD.replace("epochs: 3", "epochs: x").replace("kind: linear", "kind: mlp\n  hiden: [3]")
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert "p.yaml:7: model.hiden: unknown field, did you mean 'hidden'?" in caught.value.message
    assert "p.yaml:9: train.epochs" in caught.value.message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=x", '--set train.epochs=x: train.epochs: found "x"; input should be a valid integer'),
        ("train.epoch=2", "--set train.epoch=2: train.epoch: unknown field, did you mean 'epochs'?"),
        ("epochs", "--set epochs: must be field=value"),
        ("name.x=1", "--set name.x=1: name is not a mapping, so it has no 'x'"),
        ("train.epochs=[", "--set train.epochs=[: the value:2: not valid YAML: "),
    ],
)
def test_override_that_is_wrong_is_refused_by_its_own_words(override: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD, name="p.yaml", overrides=[override])
    assert caught.value.message.startswith(message)


def test_overrides_reach_any_depth_and_keep_the_rest():
    spec = parse_pipeline(
        GOOD, overrides=["train.optimizer.kind=sgd", "train.optimizer.lr=1e-2", "serve.port=9000", "seed=7"]
    )
    assert (spec.train.optimizer.kind, spec.train.optimizer.lr) == ("sgd", 0.01)
    assert (spec.train.epochs, spec.seed) == (3, 7)
    assert spec.serve is not None and spec.serve.port == 9000


def test_override_inside_a_section_that_is_not_written_keeps_its_default_kind():
    spec = parse_pipeline(GOOD, overrides=["train.optimizer.lr=0.5", "train.schedule.warmup_steps=4"])
    assert (spec.train.optimizer.kind, spec.train.optimizer.lr) == ("adamw", 0.5)
    assert spec.train.schedule == ConstantSchedule(warmup_steps=4)


@pytest.mark.parametrize(
    "path",
    [
        "../m.py:build",
        "/home/me/m.py:build",
        "nets/../m.py:build",
        "nets//m.py:build",
        "nets.v2/m.py:build",
        "nets/m:build",
        ".nets.m:build",
        "m.py",
        "m.py:",
    ],
)
def test_model_path_that_names_no_module_below_the_folder_is_refused(path: str):
    text = GOOD.replace("kind: linear", f"kind: import\n  path: {path!r}")
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert caught.value.message.startswith(f"p.yaml:7: model.path: found '{path}'; must be model.py:build or nets/")
    assert caught.value.message.endswith("move the module into that folder")


@pytest.mark.parametrize("path", ["m.py:build", "./m.py:build", "nets/my-m.py:Net", "nets.m:build", "m:build"])
def test_model_path_that_names_a_module_below_the_folder_is_taken(path: str):
    text = GOOD.replace("kind: linear", f"kind: import\n  path: {path!r}")
    assert parse_pipeline(text).model.model_dump()["path"] == path


def test_with_values_unknown_field_is_refused():
    with pytest.raises(SpecError, match="unknown field"):
        with_values(parse_pipeline(GOOD), {"train.epoch": 3})


def test_load_pipeline_missing_file_names_it(tmp_path: Path):
    with pytest.raises(SpecError, match=r"nothing\.yaml: no such file"):
        load_pipeline(tmp_path / "nothing.yaml")


def test_load_pipeline_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read as UTF-8 text"):
        load_pipeline(tmp_path / "p.yaml")


def test_load_pipeline_relative_root_starts_at_the_file(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(GOOD)
    loaded = load_pipeline(tmp_path / "p.yaml", ["data.root=rows"])
    assert loaded.spec.data.root == str(tmp_path / "rows")
    assert loaded.overrides == ("data.root=rows",)
    assert loaded.where("train", "epochs") == f"{tmp_path / 'p.yaml'}:8"
    assert loaded.where("train", "resources", "num_cpus") == f"{tmp_path / 'p.yaml'}:7"


def test_check_files_missing_source_and_module_are_told_with_line_and_field(tmp_path: Path):
    text = GOOD.replace("{format: sklearn, dataset: iris}", "{format: csv, path: [rows.csv, more/*.csv]}")
    (tmp_path / "p.yaml").write_text(text.replace("kind: linear", "kind: import\n  path: model.py:build"))
    with pytest.raises(SpecError) as caught:
        check_files(load_pipeline(tmp_path / "p.yaml"))
    file = tmp_path / "p.yaml"
    assert caught.value.message.splitlines() == [
        f"{file}:3: data.source.path.0: {tmp_path / 'rows.csv'} does not exist",
        f"{file}:3: data.source.path.1: {tmp_path / 'more' / '*.csv'} does not exist",
        f"{file}:7: model.path: {tmp_path / 'model.py'} does not exist",
    ]
    (tmp_path / "more").mkdir()
    for name in ("rows.csv", "more/JAN.CSV", "model.py"):
        (tmp_path / name).write_text("def build(): ...\n")
    check_files(load_pipeline(file))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("{from: nowhere}", 'data.source.label: found {"from": "nowhere"}; `from` is one of folder, filename'),
        ("{from: filename, regex: x}", "data.source.label: regex 'x' has no group; put what is the label in ( )"),
        ("{from: path, regx: (x)}", "label.regx: unknown field, did you mean 'regex'?; known here: from, regex"),
        ("{path: t.csv, file: x}", "label.file: unknown field; known here: csv, file_column, from"),
    ],
)
def test_label_that_nothing_tells_is_refused_by_field(label: str, message: str):
    text = GOOD.replace("{format: sklearn, dataset: iris}", f"{{format: images, path: in, label: {label}}}")
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_pipeline(text)


def test_check_files_table_of_labels_that_is_not_there_is_told(tmp_path: Path):
    source = "{format: images, path: ., label: {path: gone.csv}}"
    (tmp_path / "p.yaml").write_text(GOOD.replace("{format: sklearn, dataset: iris}", source))
    with pytest.raises(SpecError, match=r"p\.yaml:3: data\.source\.label\.path: .*gone\.csv does not exist"):
        check_files(load_pipeline(tmp_path / "p.yaml"))


def test_check_files_everything_there_or_remote_says_nothing(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    for path in ("rows.csv", "*.csv", ".", "s3://bucket/rows.csv", str(tmp_path / "rows.csv")):
        text = GOOD.replace("{format: sklearn, dataset: iris}", f"{{format: csv, path: '{path}'}}")
        (tmp_path / "p.yaml").write_text(text)
        check_files(load_pipeline(tmp_path / "p.yaml"))
    check_files(load_pipeline(tmp_path / "p.yaml", ["data.root=s3://bucket", "data.source.path=rows.csv"]))


BOTH = """\
tune:
  space:
    train.optimizer.lr: {log_uniform: [0.001, 0.1]}
    train.optimizer: {choice: [{kind: sgd}, {kind: adamw}]}
"""


@pytest.mark.parametrize(
    "order", [["train.optimizer.lr", "train.optimizer"], ["train.optimizer", "train.optimizer.lr"]]
)
def test_with_values_of_overlapping_paths_keeps_both_in_any_order(order: list[str]):
    values = {"train.optimizer.lr": 0.05, "train.optimizer": {"kind": "sgd"}}
    spec = with_values(parse_pipeline(GOOD + BOTH), {key: values[key] for key in order})
    assert (spec.train.optimizer.kind, spec.train.optimizer.lr) == ("sgd", 0.05)
    assert values["train.optimizer"] == {"kind": "sgd"}  # what a trial is told stays what was drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BOTH.replace("{kind: sgd}", "{kind: sgd, lr: 0.5}"),
            'p.yaml:11: tune.space.train.optimizer.lr: a choice of tune.space.train.optimizer sets it too: {"kind"',
        ),
        (
            BOTH.replace(
                "train.optimizer.lr: {log_uniform: [0.001, 0.1]}", "train.optimizer.momentum: {uniform: [0, 0.9]}"
            ),
            "p.yaml:11: tune.space.train.optimizer.momentum: ",
        ),
        (
            "tune:\n  space:\n"
            "    train.optimizer.betas.0: {choice: [0.9]}\n    train.optimizer.betas: {choice: [[0.8, 0.9]]}\n",
            "p.yaml:11: tune.space.train.optimizer.betas.0: a choice of tune.space.train.optimizer.betas sets it too",
        ),
    ],
)
def test_search_of_a_field_that_a_choice_around_it_sets_or_lacks_is_refused(text: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD + text, name="p.yaml")
    assert caught.value.message.startswith(message)


def test_largest_train_sees_choices_of_whole_sections_and_unset_values():
    space = {
        "train.resources": {"choice": [{"num_cpus": 4}, {"num_gpus": 1, "memory_bytes": 10}]},
        "train.resources.memory_bytes": {"choice": [None, 70]},
        "train.epochs": {"int_uniform": [1, 2]},
    }
    file = GOOD + f"  resources: {{num_cpus: 2}}\ntune:\n  space: {json.dumps(space)}\n"
    with pytest.raises(SpecError, match="sets it too"):
        parse_pipeline(file)
    train = parse_pipeline(file.replace(', "memory_bytes": 10', "")).largest_train
    assert train.resources.model_dump() == {"num_cpus": 4, "num_gpus": 1, "memory_bytes": 70}
    assert train.epochs == 2
