"""What `model.path` may name, and which files count; nothing is ever imported to find out."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from raypipe.errors import SpecError
from raypipe.spec.code import ALLOW_MODULES, find_module
from raypipe.spec.files import check_files
from raypipe.spec.load import load_pipeline

PIPELINE = """\
name: flowers
data:
  source: {format: sklearn, dataset: iris}
  target: target
model:
  kind: import
  path: PATH
"""


def write_sources(folder: Path, **sources: str) -> None:
    for name, text in sources.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def problem(folder: Path, path: str) -> SpecError:
    """What `raypipe validate` says of a pipeline file that names this path."""
    (folder / "p.yaml").write_text(PIPELINE.replace("PATH", path))
    with pytest.raises(SpecError) as caught:
        check_files(load_pipeline(folder / "p.yaml"))
    assert caught.value.message.startswith(f"{folder / 'p.yaml'}:7: model.path: ")
    return caught.value


@pytest.mark.parametrize("path", ["nets.small:build", "nets/small.py:build"])
def test_module_is_found_without_importing_it_or_its_packages(tmp_path: Path, path: str):
    write_sources(tmp_path, nets__small="raise RuntimeError('imported')\n")
    (tmp_path / "nets" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    found = find_module(path, tmp_path)
    assert (found.name, found.file, found.root) == ("nets.small", "nets/small.py", tmp_path)
    assert found.needed == {"nets/__init__.py", "nets/small.py"}
    assert "nets" not in sys.modules


def test_module_that_is_not_there_is_told_with_where_it_was_sought(tmp_path: Path):
    with pytest.raises(SpecError, match=r"nets\.large \(a module of .*\) does not exist"):
        find_module("nets.large:build", tmp_path)


def test_folder_must_be_given_though_the_module_lies_on_pythons_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_sources(tmp_path, nearby="def build(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match=r"its folder is not given") as caught:
        find_module("nearby.py:build", None)
    assert caught.value.hint.startswith("give --code DIR")


def test_sources_follow_imports_below_the_folder_and_nothing_else(tmp_path: Path):
    write_sources(
        tmp_path,
        model="import torch, helpers\ndef build():\n    from nets.deep import layers, other\n",
        helpers="import model  # a circle\n",
        nets__deep__layers="from . import sizes\nfrom ..top import thing\nfrom ...beyond import it\n",
        nets__deep__sizes="",
        nets__top="not python (\n",
        unrelated="",
        nets__unrelated="",
    )
    (tmp_path / "nets" / "__init__.py").write_text("")
    digests = find_module("model.py:build", tmp_path).digests
    files = ["helpers.py", "model.py", "nets/__init__.py", "nets/deep/layers.py", "nets/deep/sizes.py", "nets/top.py"]
    assert list(digests) == files
    assert digests["nets/top.py"] == hashlib.sha256(b"not python (\n").hexdigest()


@pytest.mark.parametrize("path", ["nets.small:build", "nets/small.py:build", "./nets/small.py:build"])
def test_sources_of_a_module_in_a_package_start_where_its_name_does(tmp_path: Path, path: str):
    write_sources(tmp_path, nets__small="import helpers\n", helpers="")
    assert list(find_module(path, tmp_path).digests) == ["helpers.py", "nets/small.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_sources_with_an_unreadable_import_name_it(tmp_path: Path):
    write_sources(tmp_path, model="import secret\n", secret="")
    (tmp_path / "secret.py").chmod(0)
    with pytest.raises(SpecError, match=r"imports .*secret\.py, which cannot be read"):
        find_module("model.py:build", tmp_path)


@pytest.mark.parametrize("linked", ["model.py", "helpers.py"])
def test_source_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path, linked: str):
    folder = tmp_path / "code"
    write_sources(folder, model="import helpers\ndef build(): ...\n", helpers="")
    (folder / linked).rename(tmp_path / linked)
    (folder / linked).symlink_to(tmp_path / linked)
    with pytest.raises(SpecError, match=rf"{linked}.* link that leads out of"):
        find_module("model.py:build", folder)


def test_link_within_the_folder_is_followed(tmp_path: Path):
    write_sources(tmp_path, real__model="def build(): ...\n")
    (tmp_path / "model.py").symlink_to(tmp_path / "real" / "model.py")
    assert find_module("model.py:build", tmp_path).file == "model.py"


@pytest.mark.parametrize("path", ["os:system", "builtins:exec", "runpy:run_path", "subprocess:run", "__main__:x"])
def test_module_of_python_itself_is_refused(tmp_path: Path, path: str):
    assert "standard library or of raypipe" in problem(tmp_path, path).message


def test_own_file_that_bears_the_name_of_a_python_module_is_to_be_renamed(tmp_path: Path):
    write_sources(tmp_path, code="def build(): ...\n")
    assert problem(tmp_path, "code.py:build").hint.startswith("rename your file")


def test_installed_module_is_refused_unless_the_caller_allows_it_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    error = problem(tmp_path, "torch.hub:load")
    assert "'torch.hub' is an installed module, not a file of your folder" in error.message
    assert error.hint.startswith("give --allow-module torch.hub ")
    monkeypatch.setenv(ALLOW_MODULES, "torch")
    problem(tmp_path, "torch.hub:load")
    monkeypatch.setenv(ALLOW_MODULES, "numpy, torch.hub")
    found = find_module("torch.hub:load", tmp_path)
    assert found.is_installed
    assert list(found.digests) == ["torch/__init__.py", "torch/hub.py"] == sorted(found.needed)


def test_installed_module_is_not_reached_through_a_folder_above_it(tmp_path: Path):
    write_sources(tmp_path / "env" / "site-packages", thing="def build(): ...\n")
    assert "is an installed module" in problem(tmp_path, "env/site-packages/thing.py:build").message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def build(): ...\n", "model.py has no function or class 'biuld', did you mean 'build'?"),
        ("from subprocess import run as biuld\n", "'biuld' is not written in model.py, which imports it from 'subpro"),
        ("import subprocess\nbiuld = subprocess.run\n", "'biuld' is not written in model.py, which imports it from"),
        ("biuld = exec\n", "'biuld' is not written in model.py, which imports it from 'builtins'"),
        (
            "try:\n    from os import system as biuld\nexcept ImportError:\n    def biuld(): ...\n",
            "imports it from 'os'",
        ),
        ("from helpers import biuld\n", "'biuld' is not written in model.py, which imports it from 'os'"),
        ("from helpers import *\n", "'biuld' is not written in model.py, which imports it from 'os'"),
        ("import os, math\nbiuld = os.system if math else math.sin\n", "imports it from 'os'"),
        ("import os\nx, biuld = 1, os.system\n", "imports it from 'os'"),
        ("import os\nALL = {'a': os.system}\nbiuld = ALL['a']\n", "imports it from 'os'"),
        ("import os\nbiuld = None or os.system\n", "imports it from 'os'"),
        ("from select import biuld\n", "imports it from 'select'"),
        ("def build(:\n", "model.py line 1 is no Python"),
        ("x = 1\n", "model.py has no function or class 'biuld'"),
    ],
)
def test_function_is_sought_in_the_syntax_tree(tmp_path: Path, source: str, said: str):
    write_sources(tmp_path, model=source, helpers="from os import system as biuld\n", select="def biuld(): ...\n")
    assert said in problem(tmp_path, "model.py:biuld").message


@pytest.mark.parametrize(
    "source",
    [
        "def build(): ...\n",
        "class build: ...\n",
        "build = lambda: None\n",
        "import functools\nbuild = functools.partial(dict)\n",
        "def make(): ...\nbuild = make\n",
        "def make(): ...\nALL = {'a': make}\nbuild = ALL['a'] if ALL else make\n",
        "def open(): ...\nbuild = open\n",
        "if True:\n    def build(): ...\n",
        "from helpers import build\n",
        "from helpers import make as build\n",
        "from helpers import *\n",
        "from nets.deep import build\n",
    ],
)
def test_function_that_is_written_below_the_folder_is_taken(tmp_path: Path, source: str):
    write_sources(
        tmp_path, model=source, helpers="def build(): ...\ndef make(): ...\n", nets__deep="class build: ...\n"
    )
    find_module("model.py:build", tmp_path).check_function()
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("PATH", "model.py:build"))
    check_files(load_pipeline(tmp_path / "p.yaml"))


def test_function_imported_from_an_allowed_module_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_sources(tmp_path, model="from torch.hub import load\n")
    assert problem(tmp_path, "model.py:load").hint.endswith("--allow-module torch.hub")
    monkeypatch.setenv(ALLOW_MODULES, "torch.hub")
    find_module("model.py:load", tmp_path).check_function()


def test_name_that_no_file_can_have_is_told_as_missing(tmp_path: Path):
    assert "does not exist" in problem(tmp_path, f"{'a' * 300}.py:build").message
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("PATH", f"{'a/' * 5000}b.py:build"))
    with pytest.raises(SpecError, match=r"must be model\.py:build") as caught:
        load_pipeline(tmp_path / "p.yaml")
    assert len(caught.value.message) < 1000
    write_sources(tmp_path, model=f"import {'a' * 300}\ndef build(): ...\n")
    assert find_module("model.py:build", tmp_path).needed == {"model.py"}
