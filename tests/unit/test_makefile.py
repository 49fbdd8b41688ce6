"""What make would do, told by `make -n` in a folder with the repository's Makefile; nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT_PINS = "tests/clients/pins.txt"
INSTALLED_AT, CHANGED_AT = 2_000_000_000, 2_000_000_100


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with its environment made and nothing installed into it yet."""
    (tmp_path / "tests" / "clients").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", CLIENT_PINS):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (INSTALLED_AT - 1, INSTALLED_AT - 1))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    return tmp_path


def would_run(project: Path, target: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", target], cwd=project, env=env, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()


def install(project: Path, stamp: str) -> None:
    """Leave what a finished installation leaves."""
    (project / ".venv" / stamp).touch()
    os.utime(project / ".venv" / stamp, (INSTALLED_AT, INSTALLED_AT))


def test_make_demo_the_first_time_installs_and_runs(project: Path):
    commands = would_run(project, "demo")
    assert ".venv/bin/python .ci/install.py" in commands
    assert commands[-1].endswith("--no-wait")


def test_make_demo_the_second_time_only_runs(project: Path):
    install(project, ".installed")
    (command,) = would_run(project, "demo")
    assert command == ".venv/bin/raypipe run examples/01_digits/pipeline.yaml --no-wait"


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_make_demo_after_the_pins_changed_installs_again(project: Path, changed: str):
    install(project, ".installed")
    os.utime(project / changed, (CHANGED_AT, CHANGED_AT))
    assert ".ci/install.py" in would_run(project, "demo")[0]


def test_make_check_after_an_installation_for_running_only_installs_the_rest(project: Path):
    install(project, ".installed")
    assert would_run(project, "check")[0] == ".venv/bin/python .ci/install.py dev"
    install(project, ".installed-dev")
    assert not any("install" in command for command in would_run(project, "check"))


def test_make_install_clients_checks_every_hash_and_runs_again_only_for_other_pins(project: Path):
    assert f"--require-hashes --only-binary :all: \\\n  -r {CLIENT_PINS}" in "\n".join(
        would_run(project, "install-clients")
    )
    stamp = project / ".venv-clients" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (INSTALLED_AT, INSTALLED_AT))
    assert "pip" not in "\n".join(would_run(project, "install-clients"))
    os.utime(project / CLIENT_PINS, (CHANGED_AT, CHANGED_AT))
    assert "pip" in "\n".join(would_run(project, "install-clients"))


def test_every_pin_of_the_clients_has_its_hashes_and_no_index():
    lines = (ROOT / CLIENT_PINS).read_text().splitlines()
    pins = [i for i, line in enumerate(lines) if line and line[0] not in "# "]
    assert len(pins) > 50 and all("==" in lines[i] and "--hash=sha256:" in lines[i + 1] for i in pins)
    assert not any("://" in line or "--index" in line for line in lines)
