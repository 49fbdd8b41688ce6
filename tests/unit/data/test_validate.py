from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from ray.data.extensions import ArrowTensorArray

from raypipe.batch.rows import raw_columns
from raypipe.data.checks.bad_rows import BadRows, refuse_too_many
from raypipe.data.checks.classes import MAX_CLASSES, quantity_note, refuse_no_classes
from raypipe.data.checks.schema import schema_of, types_of
from raypipe.data.formats.datasource import read_group
from raypipe.data.shards import to_rows
from raypipe.data.table.marks import FILE_KEY
from raypipe.data.table.names import ROW_ID
from raypipe.data.table.row_hash import row_hash
from raypipe.errors import DataError, RequestError
from raypipe.records import Signature
from raypipe.serve.checker import columns_of
from raypipe.spec.data import DataSpec
from raypipe.testing.fakes import fit_columns
from tests.unit.data.helpers import check, reader, source_file

NAN, INF = float("nan"), float("inf")


def block(columns, file="f.csv"):
    return pa.table(columns).replace_schema_metadata({FILE_KEY: file})


def spec(**fields):
    return DataSpec.model_validate({"source": {"format": "csv", "path": "f.csv"}, "target": "y", **fields})


def checked(columns, **fields):
    table = block(columns)
    schema = schema_of(spec(**fields), [types_of(table)])
    return (*check(table, schema), schema)


def csv_rows(file):
    return reader("csv", null_values=["NA"])(file)


def plain(values):
    return values.to_pylist() if isinstance(values, pa.Array) else values.tolist()


def reasons(bad):
    return [row["reason"] for row in bad.kept]


def test_column_that_is_misspelt_is_refused_with_the_near_name():
    with pytest.raises(DataError, match="column 'colour' is not there, did you mean 'color'"):
        checked({"color": ["a"], "y": [1]}, features=["colour"])


def test_every_name_that_is_not_there_is_told_at_once():
    transforms = [{"kind": "scale", "columns": ["z"]}]
    with pytest.raises(DataError) as caught:
        checked(
            {"color": ["a"], "b": [1]}, transforms=transforms, expectations=[{"kind": "not_null", "columns": ["q"]}]
        )
    for text in ("column 'y' is not there", "(not_null): column 'q' is not there", "(scale): column 'z' is not there"):
        assert text in caught.value.message
    with pytest.raises(
        DataError, match=r"column 'colour' is not there, did you mean 'color'\?; column 'y' is not there;"
    ):
        checked({"color": ["a"], "b": [1]}, features=["colour"])


def test_every_column_that_cannot_be_used_is_told_at_once():
    with pytest.raises(DataError, match=r"(?s)2 things are wrong.*'a' has no value in any row.*'b' has no value"):
        checked({"a": pa.nulls(2), "b": pa.nulls(2), "y": [0, 1]})


def test_whole_numbers_that_are_rather_a_quantity_than_classes_are_told():
    prices = Counter({100 * price: 2 for price in range(1, 200)})
    assert "199 different whole numbers from 100 to 19900" in quantity_note(prices, "y")
    assert "set data.task: regression" in quantity_note(prices, "y")
    for labels in (
        dict.fromkeys(range(200), 3),
        {1: 5, 9: 5},
        dict.fromkeys(map(str, prices), 2),
        {},
        {True: 1, False: 1},
    ):
        assert not quantity_note(labels, "y")


def test_target_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"f\.csv: column 'y' is not there.*'a'"):
        checked({"a": [1]})


def test_transform_of_a_column_that_is_no_feature_is_refused():
    with pytest.raises(DataError, match=r"data\.transforms \(scale\): column 'z'"):
        checked({"a": [1], "y": [1]}, transforms=[{"kind": "scale", "columns": ["z"]}])


def test_features_when_unset_are_all_columns_but_target_and_key():
    _, _, schema = checked({"id": [1], "a": [1], "y": [0], "b": [2.0]}, split={"key": ["id"]})
    assert schema.features == ("a", "b")


def test_columns_that_nothing_names_may_hold_anything_and_are_not_looked_at():
    columns = {"a": [1, 2], "y": [0, 1], "note": [None, "x"], "size": [NAN, INF]}
    values, bad, schema = checked(columns, features=["a"])
    assert bad.num_rows == 0 and list(values) == ["a", "y"] and schema.features == ("a",)


def test_numbers_of_two_files_unify_and_text_does_not():
    ints, floats = types_of(block({"a": [1], "y": [1]})), types_of(block({"a": [0.5], "y": [1]}, "g.csv"))
    texts = types_of(block({"a": ["x"], "y": [1]}, "h.csv"))
    assert schema_of(spec(), [ints, floats]).columns["a"].dtype == "float64"
    with pytest.raises(DataError, match=r"column 'a' holds int64 in f\.csv but string in h\.csv"):
        schema_of(spec(), [ints, floats, texts])


def test_types_that_change_between_files_of_one_read_task_name_both_files():
    tables = {"a.csv": pa.table({"x": [1]}), "b.csv": pa.table({"x": ["one"]})}
    with pytest.raises(DataError, match=r"'x' holds int64 in a\.csv but string in b\.csv"):
        list(read_group([source_file(n) for n in tables], lambda f: [tables[f.name]], None))


def test_files_of_one_read_task_come_out_in_one_type():
    tables = {"a.csv": pa.table({"x": [1], "n": pa.nulls(1)}), "b.csv": pa.table({"x": [0.5], "n": ["t"]})}
    (found,) = read_group([source_file(n) for n in tables], lambda f: [tables[f.name]], None)
    assert found.to_pydict() == {"x": [1.0, 0.5], "n": [None, "t"]}
    assert [str(t) for t in found.schema.types] == ["double", "string"]


def test_rows_with_missing_or_infinite_values_are_bad_with_the_reason():
    values, bad, _ = checked({"a": [1.0, None, NAN, INF, 5.0], "c": ["u", None, "", "w", "x"], "y": [0, 1, 0, 1, 1]})
    assert bad.num_rows == 3
    assert reasons(bad) == ["'a' is missing; 'c' is missing", "'a' is missing", "'a' is infinite"]
    assert [row["position"] for row in bad.kept] == [1, 2, 3]
    assert values["a"].tolist() == [1.0, 5.0] and plain(values["c"]) == ["u", "x"]


def test_missing_values_of_an_imputed_column_are_kept_as_nan():
    fields = {"transforms": [{"kind": "impute", "columns": ["a"]}]}
    values, bad, schema = checked({"a": [1, None, 3], "y": [0, 1, 0]}, **fields)
    assert bad.num_rows == 0 and schema.columns["a"].nullable and schema.columns["a"].dtype == "float64"
    np.testing.assert_array_equal(values["a"], [1.0, NAN, 3.0])


@pytest.mark.parametrize(
    ("transform", "features"),
    [
        ({"strategy": "mean"}, [1.0, 2 / 3, 0.0, 1.0]),
        ({"strategy": "most_frequent"}, [1.0, 1.0, 0.0, 1.0]),
        ({"strategy": "constant", "value": False}, [1.0, 0.0, 0.0, 1.0]),
    ],
)
def test_bool_column_with_gaps_is_the_same_in_training_batch_and_serving(transform, features):
    flags = [True, None, False, True]
    table = block({"member": flags, "y": [0, 1, 0, 1]})
    wanted = spec(transforms=[{"kind": "impute", "columns": ["member"], **transform}])
    schema = schema_of(wanted, [types_of(table)])
    assert (schema.columns["member"].dtype, schema.columns["member"].nullable) == ("bool", True)
    signature = Signature(inputs=schema.inputs, task="classification", target="y", classes=(0, 1))
    values, bad = check(table, schema)
    assert bad.num_rows == 0
    stored = pa.table({ROW_ID: row_hash(values), **values})
    paths = {
        "training": to_rows([stored], signature).columns,
        "batch": raw_columns(table, signature),
        "serving": columns_of([{"member": flag} for flag in flags], signature, max_rows=9),
    }
    fitted = fit_columns(wanted.transforms, schema.inputs, [paths["training"]])
    for name, raw in paths.items():
        assert raw["member"].dtype == np.float64, name
        np.testing.assert_array_equal(fitted.apply(raw, schema.inputs), np.array(features, np.float32)[:, None], name)
    without_gaps = [{"member": flag} for flag in (True, False)]
    assert columns_of(without_gaps, signature, max_rows=9)["member"].tolist() == [1.0, 0.0]
    with pytest.raises(RequestError, match="expected true or false"):
        columns_of([{"member": 1}], signature, max_rows=9)


def test_bool_column_beside_the_features_gives_the_row_id_it_gave_as_numbers():
    columns = {"a": [1, 2, 3], "y": [0, 1, 0]}
    flags, bad, _ = checked({**columns, "seen": [True, None, False]}, features=["a"])
    numbers, _, _ = checked({**columns, "seen": [1.0, None, 0.0]}, features=["a"])
    assert bad.num_rows == 0 and row_hash(flags).tolist() == row_hash(numbers).tolist()


def test_rows_without_target_or_split_key_are_bad():
    _, bad, _ = checked({"id": [None, "k", "l"], "a": [1, 2, 3], "y": [0, None, 1]}, split={"key": ["id"]})
    assert reasons(bad) == ["'id' is missing", "'y' is missing"]


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl"])
def test_blank_lines_between_rows_are_bad_rows_with_their_number(name, tmp_path):
    lines = ["a,y"] if name == "f.csv" else []
    for i in range(12):
        row = f"{i},{i % 2}" if name == "f.csv" else json.dumps({"a": i, "y": i % 2})
        lines.append("" if i in (3, 7, 8) else row)
    (tmp_path / name).write_text("\n".join([*lines, "", "", ""]))
    read = csv_rows if name == "f.csv" else reader("jsonl")
    (table,) = read_group([source_file(tmp_path / name)], read, None)
    schema = schema_of(spec(), [types_of(table)])
    values, bad = check(table, schema)
    assert bad.num_rows == 3 and [row["position"] for row in bad.kept] == [3, 7, 8]
    assert reasons(bad) == ["'a' is missing; 'y' is missing"] * 3
    assert values["a"].dtype == np.int64 and values["a"].tolist() == [0, 1, 2, 4, 5, 6, 9, 10, 11]


def test_lists_become_tensors_of_the_usual_shape_and_others_are_bad():
    rows = [[1, 2], [3, 4], [5], None, [6, None]]
    values, bad, schema = checked({"v": rows, "y": [0, 1, 0, 1, 0]})
    assert schema.columns["v"].shape == (2,) and values["v"].tolist() == [[1, 2], [3, 4]]
    assert reasons(bad) == ["'v' is missing, has gaps, or is not of shape [2]"] * 3


def test_nested_lists_become_images_and_irregular_ones_are_bad():
    rows = [[[1.0, 2.0], [3.0, 4.0]], [[1.0], [2.0, 3.0]], [[5.0, 6.0], [7.0, 8.0]], [[1.0, NAN], [0.0, 0.0]], []]
    values, bad, schema = checked({"v": rows, "y": [0, 1, 0, 1, 1]})
    assert schema.columns["v"].shape == (2, 2)
    assert values["v"].tolist() == [rows[0], rows[2]]
    assert [row["position"] for row in bad.kept] == [1, 3, 4] and "NaN" in reasons(bad)[1]


def test_bad_rows_are_kept_with_long_arrays_told_by_their_shape_and_long_text_cut():
    images = np.zeros((3, 8, 8), np.uint8)
    columns = {
        "image": ArrowTensorArray.from_numpy(images),
        "small": ArrowTensorArray.from_numpy(images[:, :1, :2]),
        "list": [[0.5] * 100] * 3,
        "nested": [[[1.0] * 9] * 2, [[1.0] * 9] * 2, [[1.0] * 10, [2.0] * 8]],
        "text": ["x" * 256, "x" * 1000, None],
        "few": [[1, 2], [1, 2], [None, 2]],
        "y": [0, None, None],
    }
    _, bad, _ = checked(columns)
    long = {
        "image": "64 values of uint8, shape [8, 8]",
        "small": [[0, 0]],
        "list": "100 values of float64, shape [100]",
    }
    first = {"nested": "18 values of float64, shape [2, 9]", "text": "x" * 256 + "...", "few": [1, 2], "y": None}
    second = {"nested": "18 values of float64, of uneven shape", "text": None, "few": [None, 2], "y": None}
    assert [row["row"] for row in bad.kept] == [{**long, **first}, {**long, **second}]


def test_tensor_column_keeps_shape_and_type():
    image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    values, bad, schema = checked({"image": ArrowTensorArray.from_numpy(image), "y": [0, 1]})
    assert schema.columns["image"].dtype == "uint8" and schema.columns["image"].shape == (2, 2)
    assert (values["image"] == image).all() and bad.num_rows == 0


@pytest.mark.parametrize(
    ("labels", "dtype", "found"),
    [
        ([1, 2, 1], "int64", [1, 2, 1]),
        ([1.0, 2.0, 1.0], "float64", [1, 2, 1]),
        ([True, False, True], "bool", [True, False, True]),
        (["u", "v", "u"], "string", ["u", "v", "u"]),
    ],
)
def test_class_labels_may_be_whole_numbers_text_or_booleans(labels, dtype, found):
    values, _, schema = checked({"a": [1, 2, 3], "y": labels})
    assert schema.columns["y"].dtype == dtype
    assert plain(values["y"]) == found


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (pa.array([2**63, 1, 1], pa.uint64()), 2**63),
        (pa.array([2.0**63, 1.0, 1.0]), 2**63),
        (pa.array([2**64 - 1, None, 1], pa.uint64()), 2**64 - 1),
        (pa.array([-(2.0**53), None, 1.0]), -(2**53)),
    ],
)
def test_class_labels_that_are_too_large_to_tell_apart_are_refused_with_the_value(labels, found):
    with pytest.raises(DataError, match=rf"'y' holds {found};.*\ntry: write the labels as text"):
        checked({"a": [1, 2, 3], "y": labels})


def test_class_labels_of_64_bits_are_kept():
    large = [2**63 - 1, -(2**63), 2**63 - 2]
    values, bad, _ = checked({"a": [1, 2, 3], "y": pa.array(large)})
    assert values["y"].tolist() == large and not bad.num_rows
    assert checked({"a": [1, 2], "y": pa.array([2**63 - 1, 1], pa.uint64())})[0]["y"].tolist() == [2**63 - 1, 1]


def test_class_labels_with_fractions_are_refused_with_the_value():
    with pytest.raises(DataError, match=r"target 'y' holds 2\.5; a class is a whole number"):
        checked({"a": [1, 2], "y": [1.0, 2.5]})


def test_regression_target_of_text_is_refused():
    with pytest.raises(DataError, match="regression needs numbers"):
        checked({"a": [1], "y": ["cheap"]}, task="regression")


def test_regression_target_that_is_not_finite_makes_the_row_bad():
    values, bad, _ = checked({"a": [1, 2, 3], "y": [1, None, INF]}, task="regression")
    assert values["y"].tolist() == [1.0] and values["y"].dtype == np.float64
    assert reasons(bad) == ["'y' is missing", "'y' is infinite"]


def test_column_without_any_value_is_refused():
    with pytest.raises(DataError, match="'a' has no value in any row"):
        checked({"a": pa.nulls(2), "y": [0, 1]})


def test_bad_rows_over_the_limit_are_shown_with_their_reasons():
    _, bad, _ = checked({"a": [None, 2, None, None, None], "y": [0, 1, 0, 1, 0]})
    bad.kept = [{"row_number": row["position"] + 1, **row} for row in bad.kept]
    refuse_too_many(bad, 5, 0.8)
    with pytest.raises(DataError) as caught:
        refuse_too_many(bad, 5, 0.2)
    message = str(caught.value)
    assert "4 of 5 rows break the schema" in message and "allows 1" in message
    assert "row 1: 'a' is missing" in message and "row 4" in message and "row 5" not in message
    json.dumps(bad.kept)


@pytest.mark.parametrize(("max_frac", "allowed"), [(0.29, 29), (0.07, 7), (0.0, 0), (1.0, 100)])
def test_bad_rows_up_to_exactly_the_share_are_allowed(max_frac, allowed):
    refuse_too_many(BadRows(allowed), 100, max_frac)
    if allowed < 100:
        with pytest.raises(DataError, match=f"allows {allowed}"):
            refuse_too_many(BadRows(allowed + 1), 100, max_frac)


def test_bad_rows_that_are_bad_because_of_others_are_shown_by_their_ids():
    of_test = {"row_number": 3, "source": "test_source", "reason": "'a' is missing", "row": {}}
    repeat = {"row_id": "00ff", "reason": "it repeats", "row": {}}
    with pytest.raises(DataError, match=r"(?s)test_source row 3: 'a' is missing.*row id 00ff: it repeats"):
        refuse_too_many(BadRows(2, [of_test, repeat]), 10, 0.1)


@pytest.mark.parametrize("name", [ROW_ID, "__split"])
def test_feature_with_a_name_that_shards_use_is_refused(name):
    with pytest.raises(DataError, match=f"f\\.csv: column '{name}' has a name that raypipe uses itself"):
        checked({name: [1, 2], "y": [0, 1]})
    assert checked({name: [1, 2], "a": [1, 2], "y": [0, 1]}, features=["a"])[2].features == ("a",)


def test_labels_that_are_no_classes_are_refused():
    refuse_no_classes(dict.fromkeys(range(MAX_CLASSES), 1), "y")
    with pytest.raises(DataError, match="target 'y' holds more than 100000 different values"):
        refuse_no_classes(dict.fromkeys(range(MAX_CLASSES + 1), 1), "y")
