"""The user's module runs from the bytes that were judged, whatever else bears its name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe.errors import ModelError
from raypipe.model import own_code
from raypipe.spec.code import ALLOW_MODULES


@pytest.fixture(autouse=True)
def path_and_modules() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("own_model", "own_parts", "own_nets", "thing"):
            del sys.modules[name]


def folder_of(folder: Path, **sources: str) -> Path:
    for name, text in sources.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def value(folder: Path, path: str = "own_model.py:build") -> object:
    """What the module's function gives when it is run from this folder."""
    return own_code.run_module(own_code.read_module(path, folder)).build()


def test_changed_source_is_run_again_in_one_process(tmp_path: Path):
    folder_of(tmp_path, own_model="import own_parts\ndef build(): return own_parts.N\n", own_parts="N = 1\n")
    assert value(tmp_path) == 1
    folder_of(tmp_path, own_parts="N = 2\n")
    assert value(tmp_path) == 2


def test_helper_of_another_folder_does_not_stand_in_whichever_module_imported_it(tmp_path: Path):
    first = folder_of(tmp_path / "a", own_model="import own_parts\ndef build(): return own_parts.N\n", own_parts="N=1")
    other = folder_of(tmp_path / "b", own_nets="import own_parts\ndef build(): return own_parts.N\n", own_parts="N=2")
    assert (value(first), value(other, "own_nets.py:build"), value(first)) == (1, 2, 1)


def test_source_is_run_as_it_was_read_whatever_lies_there_now(tmp_path: Path):
    folder_of(tmp_path, own_model="def build(): return 1\n")
    read = own_code.read_module("own_model.py:build", tmp_path)
    folder_of(tmp_path, own_model="def build(): return 2\n")
    assert own_code.run_module(read).build() == 1
    assert own_code.source_digests("own_model.py:build", tmp_path) == read.digests


def test_folder_is_not_shadowed_by_an_installed_package_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = tmp_path / "site-packages"
    (installed / "own_nets").mkdir(parents=True)
    (installed / "own_nets" / "__init__.py").write_text("raise RuntimeError('ran')\n")
    folder = folder_of(tmp_path / "code", own_nets__small="def build(): return 1\n")
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    assert value(folder, "own_nets/small.py:build") == 1


def test_installed_module_that_is_loaded_stays_and_the_own_file_is_to_be_renamed(tmp_path: Path):
    import yaml

    folder_of(tmp_path, yaml="def build(): return 1\n")
    with pytest.raises(ModelError, match="installed module named 'yaml' is loaded already"):
        value(tmp_path, "yaml.py:build")
    assert sys.modules["yaml"] is yaml


def test_allowed_installed_module_runs_as_python_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    installed = folder_of(tmp_path / "site-packages", thing="def build(): return 1\n")
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    with pytest.raises(ModelError, match="must be allowed by name"):
        value(tmp_path, "thing:build")
    monkeypatch.setenv(ALLOW_MODULES, "thing")
    assert value(tmp_path, "thing:build") == 1


def test_folder_that_this_machine_has_not_is_the_one_ray_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder_of(tmp_path, own_model="def build(): return 1\n"))
    assert value(Path("/nowhere/on/this/machine")) == 1
