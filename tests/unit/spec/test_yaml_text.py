"""Pipeline files made to hurt whoever reads them: refused at once, with a line, and shown without harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raypipe.errors import SpecError
from raypipe.spec import load
from raypipe.spec.load import load_pipeline, parse_pipeline
from raypipe.spec.tune import MAX_SPACE_VALUES
from raypipe.spec.yaml_text import MAX_DEPTH, MAX_FILE_BYTES, MAX_NODES, parse

GOOD = """\
name: flowers
data:
  source: {format: sklearn, dataset: iris}
  target: target
model: {kind: linear}
"""

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
"""Nine short lines that stand for 9^9 values."""

TOWER = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} {'[' * 9}*a{n - 1}{']' * 9}\n" for n in range(1, 100))
"""Never more than ten deep as written, 900 with its aliases written out."""

HOSTILE = {
    "alias bomb": (BOMB, f"p.yaml:6: stands for more than {MAX_NODES:,} values"),
    "alias bomb of merged mappings": (
        "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
        "p.yaml:",
    ),
    "alias inside itself": ("name: &a [*a]\n", "p.yaml:1: *a stands inside what it names, so it has no end"),
    "mapping inside itself": ("&a name: x\ndata: &b {c: {d: *b}}\n", "p.yaml:2: *b stands inside what it names"),
    "tower of aliases": (TOWER, f"p.yaml:7: nested more than {MAX_DEPTH} deep"),
    "deep as written": (f"name: {'[' * 5000}{']' * 5000}\n", f"p.yaml:1: nested more than {MAX_DEPTH} deep"),
    "deep and never closed": (f"name: {'[' * 100_000}", f"p.yaml:1: nested more than {MAX_DEPTH} deep"),
    "many values": (f"name: [{'1,' * MAX_NODES}]\n", f"p.yaml:1: stands for more than {MAX_NODES:,} values"),
    "long number": (GOOD + f"seed: {'9' * 5000}\n", "p.yaml:6: not valid YAML: a number of 5,000 characters"),
    "long hexadecimal number": (GOOD + f"seed: 0x{'f' * 5000}\n", "p.yaml:6: not valid YAML: a number of 5,002 char"),
    "long number to the base 60": (
        GOOD + f"seed: 1{':1' * 300_000}\n",
        "p.yaml:6: not valid YAML: a number of 600,001",
    ),
    "escape character as it is": (GOOD + "seed: '\x1b[2J'\n", "p.yaml:6: not valid YAML: "),
    "key that is a number": (GOOD + "1: x\n", "p.yaml:6: a key is '1', which YAML reads as int; it must be text"),
    "key that is a list": (GOOD + "? [a]\n: x\n", "p.yaml:6: a key is a seq; it must be text"),
    "unknown tag": (GOOD + "seed: !!python/object/apply:os.system [x]\n", "p.yaml:6: not valid YAML: could not determ"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_with_its_line(case: str):
    text, message = HOSTILE[case]
    with pytest.raises(SpecError) as caught:
        parse_pipeline(text, name="p.yaml")
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 5000, "9" * 5000, "1" + ":1" * 50_000])
def test_hostile_override_is_refused_by_its_own_words(value: str):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD, overrides=[f"seed={value}"])
    assert caught.value.message.startswith(f"--set seed={value[:100]}")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.args." + ".".join("a" * 60_000) + "=1", "--set model.args.a.a"),
        ("train." + "9" * 5000 + "=1", "--set train.999"),
        ("data.transforms.٣=1", "--set data.transforms.٣=1: data.transforms is not a mapping, so it has no '٣'"),
        ("data.transforms.00=1", "--set data.transforms.00=1: data.transforms is not a mapping, so it has no '00'"),
    ],
)
def test_override_of_a_hostile_path_is_refused(path: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD.replace("target: target", "target: target\n  transforms: []"), overrides=[path])
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 1000


def test_file_that_is_too_large_is_not_read(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("#")
    os.truncate(tmp_path / "p.yaml", 2**40)  # more than any machine's memory; takes no room on the disk
    with pytest.raises(SpecError, match=rf"p\.yaml: is larger than {MAX_FILE_BYTES:,} bytes"):
        load_pipeline(tmp_path / "p.yaml")


def test_file_just_below_the_limit_is_read(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(GOOD + "#" * (MAX_FILE_BYTES - len(GOOD)))
    assert load_pipeline(tmp_path / "p.yaml").spec.name == "flowers"


def test_thousands_of_unknown_fields_are_compared_a_few_times_only(monkeypatch: pytest.MonkeyPatch):
    compared: list[str] = []
    real = load.did_you_mean
    monkeypatch.setattr(load, "did_you_mean", lambda word, known: compared.append(word) or real(word, known))
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD + "".join(f"k{n}: 1\n" for n in range(20_000)) + f"? {'k' * 100_000}\n: 1\n", name="p.yaml")
    *told, last = caught.value.message.split("\n")
    assert len(told) == len(compared) == load.MAX_PROBLEMS
    assert last == f"p.yaml: and {20_001 - load.MAX_PROBLEMS:,} more"


def test_search_space_of_more_values_than_are_checked_is_refused():
    many = ", ".join(["1"] * (MAX_SPACE_VALUES + 1))
    with pytest.raises(SpecError, match=rf"p\.yaml:7: tune\.space: lists {MAX_SPACE_VALUES + 1:,} values"):
        parse_pipeline(GOOD + f"tune:\n  space: {{train.epochs: {{choice: [{many}]}}}}\n", name="p.yaml")


def test_alias_within_the_limits_stands_for_its_value():
    text = GOOD + "train: {epochs: &n 3}\ntune: {num_trials: *n, space: {seed: {choice: [1]}}}\n"
    spec = parse_pipeline(text)
    assert spec.tune is not None
    assert spec.tune.num_trials == spec.train.epochs == 3


def test_override_of_one_of_two_that_share_an_alias_leaves_the_other():
    text = GOOD.replace("{format: sklearn, dataset: iris}", "&s {format: csv, path: a.csv}") + "  # end\n"
    text = text.replace("  target: target\n", "  target: target\n  test_source: *s\n")
    spec = parse_pipeline(text, overrides=["data.test_source.path=b.csv"])
    assert spec.data.model_dump()["source"]["path"] == "a.csv"
    assert spec.data.model_dump()["test_source"]["path"] == "b.csv"


@pytest.mark.parametrize("key", ["x\\e[2Jy", "x\\nerror: p.yaml is fine", "x\\ry", "x\\u202ey", "x\\u2028y", "x\\x9by"])
def test_unknown_key_with_control_characters_is_told_as_one_plain_line(key: str):
    with pytest.raises(SpecError) as caught:
        parse_pipeline(GOOD + f'"{key}": 1\n', name="p.yaml")
    message = caught.value.message
    assert message.startswith("p.yaml:6: x\\")
    assert message.isprintable()


def test_parse_says_nothing_of_an_empty_text():
    assert parse("", "p.yaml").value is None
