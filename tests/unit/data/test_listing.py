"""Which files a path, a folder and a glob name."""

from __future__ import annotations

import os

import pytest

from raypipe.data.formats.labels import rows_of
from raypipe.data.sources.files import find
from raypipe.errors import DataError
from tests.unit.data.helpers import source


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a\n1\n")


def names(path, root):
    return [file.name for file in find(path, str(root), (".csv",))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/**/train.csv", ["a/b/c/train.csv", "a/b/train.csv", "a/train.csv"]),
        ("**/b/*.csv", ["a/b/test.csv", "a/b/train.csv", "b/train.csv"]),
        ("**/c/**/train.csv", ["a/b/c/train.csv"]),
        ("a/**", ["a/b/c/train.csv", "a/b/test.csv", "a/b/train.csv", "a/train.csv", "a/xtrain.csv"]),
        ("a/*/train.csv", ["a/b/train.csv"]),
        ("[ab]/?rain.csv", ["a/train.csv", "b/train.csv"]),
        ("*/./train.csv", ["a/train.csv", "b/train.csv"]),
    ],
)
def test_glob_matches_whole_names_and_two_stars_any_number_of_folders(path, expected, tmp_path):
    put(tmp_path, "a/train.csv", "a/xtrain.csv", "a/b/train.csv", "a/b/test.csv", "a/b/c/train.csv", "b/train.csv")
    assert names(path, tmp_path) == expected
    assert names(f"{tmp_path}/{path}", tmp_path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("in", ["in/A.CSV", "in/b.Csv", "in/c.csv"]),
        ("in/*.csv", ["in/A.CSV", "in/b.Csv", "in/c.csv"]),
        ("*/?.CSV", ["in/A.CSV", "in/b.Csv", "in/c.csv"]),
        ("in/*.[Cc]sv", ["in/b.Csv", "in/c.csv"]),  # in brackets the letters that are written
        ("in/a*.csv", []),  # of the rest of a name they always are
        ("in/*.t*", ["in/d.TXT.GZ"]),
        ("in/*.txt.gz", ["in/d.TXT.GZ"]),
    ],
)
def test_ending_of_a_name_counts_in_small_letters_and_capitals_in_folders_and_globs(path, expected, tmp_path):
    put(tmp_path, "in/A.CSV", "in/b.Csv", "in/c.csv", "in/d.TXT.GZ")
    if expected:
        assert names(path, tmp_path) == expected
    else:
        with pytest.raises(DataError, match="matches no file"):
            names(path, tmp_path)


def test_folder_with_brackets_in_its_name_is_no_glob(tmp_path):
    root = tmp_path / "exp[2]"
    put(root, "train.csv", "in/b.csv", "in/c/d.csv")
    put(tmp_path, "exp2/train.csv")
    for path, expected in {
        "train.csv": ["train.csv"],
        "in": ["in/b.csv", "in/c/d.csv"],
        "*.csv": ["train.csv"],
        "**/d.csv": ["in/c/d.csv"],
    }.items():
        assert names(path, root) == expected
    assert names("exp[2]/train.csv", tmp_path) == ["exp[2]/train.csv"]
    assert names("exp[2]/in", tmp_path) == ["exp[2]/in/b.csv", "exp[2]/in/c/d.csv"]


def test_file_of_the_very_name_goes_before_what_its_name_would_match(tmp_path):
    put(tmp_path, "part[1].csv", "part1.csv", "part2.csv")
    assert names("part[1].csv", tmp_path) == ["part[1].csv"]
    assert names("part[12].csv", tmp_path) == ["part1.csv", "part2.csv"]


def test_folder_is_read_without_what_programs_keep_for_themselves_and_a_glob_as_written(tmp_path):
    root = tmp_path / ".cache" / "_data"  # only what is below the folder that the source names is looked at
    put(root, "a.csv", "b/c.csv", "_b.csv", ".ipynb_checkpoints/a.csv", "b/_temporary/0/part.csv", "b/.c/d_.e/f.csv")
    assert names(".", root) == ["a.csv", "b/c.csv"]
    assert names("b/_temporary", root) == ["b/_temporary/0/part.csv"]
    assert names(".ipynb_checkpoints/*.csv", root) == [".ipynb_checkpoints/a.csv"]
    assert len(names("**/*.csv", root)) == 6


def test_names_of_rows_are_relative_to_a_folder_with_brackets(tmp_path):
    root = tmp_path / "exp[2]"
    (root / "in" / "cat").mkdir(parents=True)
    (root / "in" / "cat" / "a.png").write_bytes(b"x")
    for path in ("in", "in/*/*.png", "in/cat/a.png"):
        (row,) = rows_of(source("images", path=path), str(root))
        assert row.name == ("a.png" if path.endswith("a.png") else "cat/a.png")
    (row,) = rows_of(source("images", path="exp[2]/in"), str(tmp_path))
    assert row.name == "cat/a.png"


def test_glob_of_one_folder_does_not_look_into_those_below_it(tmp_path):
    put(tmp_path, "a.csv", "deep/b.csv")
    handles = [os.open(tmp_path / "deep", os.O_DIRECTORY)]
    for _ in range(20):  # a path longer than any system call takes: it cannot be listed, whoever asks
        os.mkdir("x" * 250, dir_fd=handles[-1])
        handles.append(os.open("x" * 250, os.O_DIRECTORY, dir_fd=handles[-1]))
    for handle in handles:
        os.close(handle)
    with pytest.raises(DataError, match="cannot be read"):
        names("**/*.csv", tmp_path)
    assert names("*.csv", tmp_path) == ["a.csv"]
