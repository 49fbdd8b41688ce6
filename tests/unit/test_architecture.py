"""Promises about the whole: what stays light, what survives a process, which files agree with each other."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe import errors

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "pandas", "pyarrow", "boto3")
FIRST_EXAMPLE = ROOT / "examples" / "01_digits" / "pipeline.yaml"
PIPELINE_FILES = sorted(
    path
    for folder in ("examples", "jobs")
    for suffix in ("yaml", "yml")
    for path in (ROOT / folder).rglob(f"*.{suffix}")
)

LIGHT = ("raypipe", "raypipe.errors", "raypipe.spec", "raypipe.spec.load", "raypipe.spec.pipeline", "raypipe.records")

IMPORT_LIGHT = f"""
import importlib, json, sys
brought = {{}}
for module in {LIGHT!r}:
    importlib.import_module(module)
    brought[module] = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(brought))
"""


# --- light ---------------------------------------------------------------------------------------------------------


def test_import_of_the_light_rooms_brings_no_heavy_package():
    done = subprocess.run([sys.executable, "-c", IMPORT_LIGHT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {module: [] for module in LIGHT}


# --- errors --------------------------------------------------------------------------------------------------------


def all_errors(base: type[errors.RaypipeError] = errors.RaypipeError) -> Iterator[type[errors.RaypipeError]]:
    yield base
    for child in base.__subclasses__():
        yield from all_errors(child)


@pytest.mark.parametrize("kind", list(dict.fromkeys(all_errors())), ids=lambda kind: kind.__name__)
def test_error_survives_pickle_with_its_type_message_and_hint(kind: type[errors.RaypipeError]):
    sent = kind("shard-0003 has 7 columns; it must have 8", "prepare the dataset again")
    came = pickle.loads(pickle.dumps(sent))
    assert type(came) is kind
    assert str(came) == str(sent)
    assert vars(came) == vars(sent)
    assert came.exit_code in (1, 2, 3, 4)
    assert isinstance(came.transient, bool)


def test_request_error_keeps_its_status_through_pickle():
    came = pickle.loads(pickle.dumps(errors.RequestError("body too large", "send at most 1 MB", status=413)))
    assert came.status == 413


# --- files that must agree --------------------------------------------------------------------------------------------


def test_first_example_exists():
    assert FIRST_EXAMPLE.exists()


@pytest.mark.parametrize("path", PIPELINE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_pipeline_file_parses(path: Path):
    from raypipe.spec.load import load_pipeline

    assert load_pipeline(path).path == path


def test_newest_version_in_changelog_is_the_version_in_pyproject():
    project = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    headings = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert project is not None
    assert headings, "CHANGELOG.md has no heading like `## 0.1.0`"
    assert headings[0] == project.group(1)


def test_every_make_command_in_the_readme_is_a_target():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    in_code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, flags=re.DOTALL))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", in_code))
    assert named - targets == set()
