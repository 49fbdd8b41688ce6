"""Notes of a Ray that stays up: whose are believed, and which commands join."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from raypipe.errors import ClusterError
from raypipe.runtime import kept
from raypipe.runtime.process import ProcessId


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return kept.writable_folder()


def note(folder: Path, **changed: object) -> kept.Kept:
    """A note as the process of this test would leave it."""
    digest = kept.environment_digest(os.environ)
    mine = kept.Kept("127.0.0.1:1", kept._installation(), digest, ProcessId.own(), 5.0)
    mine = replace(mine, **changed)  # type: ignore[arg-type]
    (folder / kept.NOTE).write_text(json.dumps(asdict(mine)))
    return mine


def test_note_of_a_process_that_lives_is_found_and_joined(folder: Path, monkeypatch: pytest.MonkeyPatch):
    mine = note(folder)
    assert kept.find() == kept.joinable() == mine and not mine.unlike_here
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert kept.joinable() is None, "who names a cluster means it"


def test_note_of_a_process_that_is_gone_or_no_note_is_not_believed(folder: Path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    note(folder, process=replace(ProcessId.own(), pid=process.pid))
    assert kept.find() is None
    note(folder, process=replace(ProcessId.own(), started=1))
    assert kept.find() is None, "another process has its number now"
    for text in ("", "{", "[]", '{"address": "127.0.0.1:1"}', '{"process": {"host": 1}}'):
        (folder / kept.NOTE).write_text(text)
        assert kept.find() is None


@pytest.mark.parametrize("variable", ["AWS_REGION", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "https_proxy"])
def test_ray_of_another_environment_is_not_joined(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str):
    note(folder)
    monkeypatch.setenv(variable, "another-value")
    found = kept.find()
    assert found is not None and "other settings" in found.unlike_here and kept.joinable() is None
    assert "another-value" not in (folder / kept.NOTE).read_text()


def test_ray_of_another_installation_is_not_joined(folder: Path):
    other = note(folder, installation="raypipe 0.0.9, ray 2.0.0, Python 3.10.1 in /elsewhere")
    assert kept.joinable() is None
    assert other.unlike_here.startswith("is of raypipe 0.0.9, ray 2.0.0, Python 3.10.1 in /elsewhere, and this is ray")


def test_variables_that_no_worker_reads_make_no_other_environment():
    assert kept.environment_digest({"A": "1", "TERM": "x"}) == kept.environment_digest({})


@pytest.mark.parametrize("home", ["/proc/none", "file"])
def test_home_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / home) if home == "file" else home)
    with pytest.raises(ClusterError, match="which cannot be written") as caught:
        kept.writable_folder()
    assert "XDG_STATE_HOME" in caught.value.hint
