"""Pipeline files that are written for data: valid, the same each time, each guess with a comment beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.draft.written import Written, flow, some
from raypipe.spec.load import load_pipeline
from tests.conftest import examples
from tests.unit.draft.projects import NUM, RANDOM, drafted, init, plan, write_csv, write_picture


def mixed_columns() -> dict[str, list[Any]]:
    """One column of each kind, and what is no feature."""
    return {
        "id": list(range(1, NUM + 1)),
        "age": ["" if i % 9 == 0 else i % 60 for i in range(NUM)],
        "pay": RANDOM.normal(1000, 200, NUM).round(2).tolist(),
        "city": [("Bonn", "Köln", "Ulm")[i % 3] if i % 7 else "" for i in range(NUM)],
        "shop": [f"s{i % 40}" for i in range(NUM)],
        "since": [str(np.datetime64("2020-01-01") + 5 * (i % 90)) for i in range(NUM)],
        "member": ["true" if i % 2 else "false" for i in range(NUM)],
        "says": [f"sentence number {i} of many" for i in range(NUM)],
        "same": ["x"] * NUM,
        "sold": [("no", "yes")[i % 5 == 0] for i in range(NUM)],
    }


def test_table_with_each_kind_of_column_gets_what_each_needs(tmp_path: Path):
    spec, text, row = drafted(tmp_path, write_csv(tmp_path / "flats.csv", mixed_columns()))
    assert (spec.data.target, spec.data.task, spec.data.split.kind) == ("sold", "classification", "stratified")
    assert set(spec.data.features or ()) == {"age", "pay", "city", "shop", "since", "member"} == set(row)
    kinds = [(transform.kind, transform.columns) for transform in spec.data.transforms]
    assert kinds == [
        ("impute", ["age"]),
        ("impute", ["city"]),
        ("date_parts", ["since"]),
        ("standardize", ["age", "pay", "since"]),
        ("one_hot", ["city"]),
        ("ordinal", ["shop"]),
    ]
    assert spec.model.kind == "mlp" and spec.model.embeddings == {"shop": 7}
    assert spec.data.policy.unknown_categories == "ignore"
    (gate,) = spec.evaluate.gates
    assert gate.metric == "accuracy" and gate.min == 0.85
    for comment in (
        "target: sold # guessed as the last column; --target says otherwise",
        "# left out, as each counts the rows: id",
        "# left out, as each holds one value in all rows: same",
        "# left out, as each holds text that hardly ever repeats, which needs a network of its own: says",
    ):
        assert comment in text
    assert None not in row.values() and row["member"] in (True, False)
    assert "register" in plan(tmp_path)


def test_same_data_gives_the_same_file_and_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    data = write_csv(tmp_path / "flats.csv", mixed_columns())
    texts = [drafted(tmp_path / name, data)[1] for name in "ab"]
    assert texts[0] == texts[1]
    again = init(tmp_path / "a" / "p", "--from", data)
    assert again.exit_code == 2 and "nothing was written" in again.stderr


@pytest.mark.parametrize("form", ["csv", "semicolons", "tabs", "parquet", "jsonl"])
def test_table_of_any_format_is_read_as_the_pipeline_will_read_it(tmp_path: Path, form: str):
    a, y = RANDOM.normal(size=NUM).tolist(), [i % 3 for i in range(NUM)]
    columns = {"y": y, "a": a, "b": a[::-1]}
    path = tmp_path / f"t.{ {'semicolons': 'csv', 'tabs': 'tsv'}.get(form, form) }"
    if form == "parquet":
        pq.write_table(pa.table(columns), path)
    elif form == "jsonl":
        path.write_text("\n".join(json.dumps({"y": y[i], "a": a[i], "b": a[-1 - i]}) for i in range(NUM)))
    else:
        write_csv(path, columns, {"semicolons": ";", "tabs": "\t"}.get(form, ","))
    spec, text, row = drafted(tmp_path, path)
    assert spec.data.target == "y" and "guessed for its name" in text
    assert spec.data.features is None and row == pytest.approx({"a": a[0], "b": a[-1]})


def test_number_to_predict_is_a_regression_and_rows_without_one_are_left_out(tmp_path: Path):
    columns = {"a": RANDOM.normal(size=NUM).tolist(), "price": ["" if i < 3 else i * 1.5 for i in range(NUM)]}
    spec, text, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", columns))
    assert spec.data.task == "regression" and spec.evaluate.gates[0].metric == "r2"
    assert [condition.op for condition in spec.data.source.where] == ["not_null"] and "3 rows have no target" in text
    spec, _, _ = drafted(tmp_path / "named", tmp_path / "t.csv", "--target", "a")
    assert spec.data.target == "a" and spec.data.features is None


def test_rare_class_gets_a_gate_by_class_and_a_column_of_splits_is_used(tmp_path: Path):
    part = ["train" if i % 5 else "test" for i in range(NUM)]
    columns = {"a": RANDOM.normal(size=NUM).tolist(), "part": part, "y": [int(i % 20 == 0) for i in range(NUM)]}
    spec, _, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", columns))
    assert spec.data.split.kind == "column" and spec.data.split.column == "part" and spec.data.split.val == []
    assert [gate.metric for gate in spec.evaluate.gates] == ["accuracy", "balanced_accuracy"]


def test_table_of_one_text_gets_a_network_that_reads_words(tmp_path: Path):
    columns = {
        "says": [f"word {i} and many more" for i in range(NUM)],
        "label": [("x", "y")[i % 2] for i in range(NUM)],
    }
    spec, _, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", columns))
    assert [t.kind for t in spec.data.transforms] == ["tokens"] and spec.model.kind == "transformer"


@pytest.mark.parametrize(
    ("columns", "words", "message"),
    [
        ({"a": [1.5] * 9, "n": ["x"] * 9}, (), "'n', which is the last column, holds one value in all rows"),
        ({"a": [1, 2, 2], "b": [1.5, 2.5, 2.5]}, ("--target", "c"), "no column 'c'; the columns are a, b"),
        ({"y": [1, 2, 2]}, (), "beside the target 'y' there is no column a model could learn from"),
        ({"a": [1.5, 2.5], "label": ["", ""]}, (), "'label', which is named like one, holds no value; the columns are"),
    ],
)
def test_table_without_a_target_or_features_is_refused_with_its_columns(
    tmp_path: Path, columns: dict[str, list[Any]], words: tuple[str, ...], message: str
):
    answer = init(tmp_path / "p", "--from", write_csv(tmp_path / "t.csv", columns), *words)
    assert answer.exit_code == 2 and message in answer.stderr and "--target" in answer.stderr, answer.stderr
    assert not (tmp_path / "p").exists()


def test_bad_files_and_rows_are_allowed_as_far_as_they_were_seen(tmp_path: Path):
    for i in range(9):
        write_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png")
    for i in range(3):
        (tmp_path / "pets" / "dog" / f"broken{i}.png").write_bytes(b"no picture")
    spec, text, _ = drafted(tmp_path, tmp_path / "pets")
    assert spec.data.bad_rows.max_frac == 0.5 and "3 of 12 files" in text
    rows = [json.dumps({"a": i * 1.5, "y": i // 4 % 2}) if i % 4 == 0 else "{broken" for i in range(80)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    spec, text, _ = drafted(tmp_path / "rows", tmp_path / "t.jsonl")
    assert spec.data.bad_rows.max_frac == 1.0 and "60 of 80 rows" in text


@pytest.mark.parametrize(
    ("columns", "target", "lines"),
    [
        ({"is_red": 2, "is_blue": 2, "is_green": 2}, "is_green", ["is_red, is_blue look like targets too: task: mul"]),
        (
            {"label": 3, "y": None, "outcome": 2},
            "label",
            ["y, outcome look like targets too: a file predicts one of them", "here they are features"],
        ),
        (
            {"y_1": None, "y_2": None},
            "y_2",
            ["y_1 looks like a target too: task: regression predicts several"],
        ),
        ({"pay": None, "target": 2}, "target", []),
        ({"x1": None, "x2": 2}, "x2", []),
        ({"is_member": 2, "is_price": None}, "is_price", ["is_member looks like a target too"]),
        ({"pay_net": None, "is_member": 2}, "is_member", []),
    ],
)
def test_columns_that_look_like_targets_beside_the_guessed_one_are_told(
    tmp_path: Path, columns: dict[str, int | None], target: str, lines: list[str]
):
    made = {name: [RANDOM.normal() if num is None else i % num for i in range(NUM)] for name, num in columns.items()}
    spec, text, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", {"a": RANDOM.normal(size=NUM).tolist(), **made}))
    assert spec.data.target == target
    assert all(line in text for line in lines) and ("like a target" in text or "like targets" in text) == bool(lines)


def test_several_columns_that_cannot_be_read_are_all_named_in_their_order(tmp_path: Path):
    lists = [f"l{i}" for i in range(5)]
    rows = [{"a": i * 1.5, **{name: list(range(i % 3)) for name in lists}, "y": i % 2} for i in range(NUM)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, text, _ = drafted(tmp_path, tmp_path / "t.jsonl")
    assert f"holds lists of uneven length, or no numbers: {', '.join(lists)}" in text


def test_gate_of_a_very_rare_class_can_be_reached(tmp_path: Path):
    columns = {"a": RANDOM.normal(size=4000).tolist(), "y": [int(i % 1000 == 0) for i in range(4000)]}
    spec, _, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", columns))
    assert 0.999 < (spec.evaluate.gates[0].min or 1) < 1


def test_classes_too_small_to_be_divided_are_left_out_and_told(tmp_path: Path):
    labels = ["a", "b"] * 30 + ["tpyo"] + ["c"] * 2
    columns = {"x": RANDOM.normal(size=len(labels)).tolist(), "y": labels}
    spec, text, _ = drafted(tmp_path, write_csv(tmp_path / "t.csv", columns))
    (condition,) = spec.data.source.where
    assert (condition.op, condition.value) == ("not_in", ["c", "tpyo"])
    assert "# left out, as too few to be in train, val and test: c (2), tpyo (1)" in text
    for i in range(9):
        write_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png")
    write_picture(tmp_path / "pets" / "newt" / "1.png")
    spec, text, _ = drafted(tmp_path / "folders", tmp_path / "pets")
    (condition,) = spec.data.source.where
    assert (condition.column, condition.value) == ("label", ["newt"]) and "one of 2 classes" in text
    assert "newt" not in "".join(line for line in text.splitlines() if "target: label" in line)


def test_table_of_ids_alone_and_one_of_too_few_rows_of_each_class_are_refused(tmp_path: Path):
    ids = {"id": list(range(NUM)), "code": [f"{i:08x}" for i in range(NUM)], "y": [i % 2 for i in range(NUM)]}
    for columns, message in (
        (ids, "no column a model could learn from: id (counts the rows); code (names the rows)"),
        ({"a": [1.5, 2.5, 2.0], "y": ["u", "v", "v"]}, "target 'y' has 2 classes, and 0 with 3 rows or more"),
    ):
        answer = init(tmp_path / "p", "--from", write_csv(tmp_path / "t.csv", columns))
        assert answer.exit_code == 2 and message in answer.stderr, answer.stderr


def test_names_in_the_data_stay_though_templates_use_them(tmp_path: Path):
    columns = {"my-project": RANDOM.normal(size=NUM).tolist(), "y": [i % 2 for i in range(NUM)]}
    path = write_csv(tmp_path / "my-project" / "t.csv", columns)
    spec, _, row = drafted(tmp_path, path)
    assert spec.data.source.places() == [str(path)] and list(row) == ["my-project"]


def test_byte_order_mark_is_no_part_of_a_name(tmp_path: Path):
    path = write_csv(tmp_path / "t.csv", {"a": RANDOM.normal(size=NUM).tolist(), "y": [i % 2 for i in range(NUM)]})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    spec, _, row = drafted(tmp_path, path)
    assert list(row) == ["a"] and [t.columns for t in spec.data.transforms] == [["a"]]


def test_text_gets_a_language_model_that_its_own_beginning_asks(tmp_path: Path):
    text = "the quick brown fox jumps over the lazy dog and back again. " * 60
    (tmp_path / "tales.txt").write_text(text)
    spec, _, row = drafted(tmp_path, tmp_path / "tales.txt")
    assert spec.data.task == "language_model" and spec.model.kind == "gpt"
    assert row == {"text": text[:16]}
    assert "register" in plan(tmp_path)


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda path: None, (), "matches no file"),
        (lambda path: path.write_text("x"), (), "its name does not tell what it holds"),
        (lambda path: write_picture(path / "cat" / "1.png"), (), "1 picture in one folder (cat)"),
        (
            lambda path: write_picture(path / "cat" / "1.png"),
            ("--target", "label"),
            "--target names a column of a table",
        ),
        (
            lambda path: [
                (path / c).mkdir(parents=True) or [(path / c / f"{i}.wav").write_text("x") for i in range(3)]
                for c in "ab"
            ],
            (),
            "none of 6",
        ),
        (lambda path: path.mkdir(), (), "it holds nothing"),
        (
            lambda path: [write_picture(path / c / "1.png") for c in "ab"],
            (),
            "data has 2 classes, and 0 with 3 files or more: one is needed to train, one to validate and one to test "
            "(a (1), b (1))",
        ),
        (lambda path: path.with_suffix(".csv").symlink_to("nowhere"), (), "matches no file"),
    ],
    ids=["absent", "unknown", "one class", "target of no table", "no recording", "empty", "two files", "dangling"],
)
def test_data_that_no_file_can_be_written_for_is_refused_and_nothing_is_made(
    tmp_path: Path, make: Any, words: tuple[str, ...], message: str
):
    make(tmp_path / "data")
    answer = init(tmp_path / "p", "--from", tmp_path / "data", *words)
    assert answer.exit_code in (2, 3) and message in answer.stderr, answer.output
    assert "Traceback" not in answer.stderr and not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "a.csv", "--template", "text"], "found --from and --template"),
        (["p", "--target", "y"], "there is no --from"),
        ([], "found no folder to make"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: list[str], message: str):
    answer = init(*words)
    assert answer.exit_code == 2 and message in answer.stderr


def test_folder_is_named_after_the_data_where_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "in" / "My flats.v2.csv", {"a": [1.5, 2.5, 2.0] * 9, "y": [0, 1, 1] * 9})
    assert init("--from", "in/My flats.v2.csv").exit_code == 0
    spec = load_pipeline(tmp_path / "My-flats-project" / "pipeline.yaml").spec
    assert spec.name == "my-flats-project" and spec.data.source.places() == ["../in/My flats.v2.csv"]


@settings(max_examples=examples(40))
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=30))
def test_names_of_any_kind_stay_what_they_are_and_comments_stay_comments(names: list[str]):
    written = Written(
        "A table.", data=[f"features: {flow(names, 4)} # {some(names)}"], model=flow({"kind": names[0]}), guesses=names
    )
    read = yaml.safe_load(io.StringIO(written.text("n")))
    assert read["data"]["features"] == names and read["model"]["kind"] == names[0] and read["name"] == "n"
