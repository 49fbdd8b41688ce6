"""What `make install` does with a wheel, by the real pip: nothing is installed whose hash was not checked before."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


def tiny_wheel(folder: Path, code: str) -> Path:
    """A wheel of the package `checked` 1.0 that holds one module."""
    wheel = folder / "checked-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("checked.py", code)
        archive.writestr("checked-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: checked\nVersion: 1.0\n")
        archive.writestr(
            "checked-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("checked-1.0.dist-info/RECORD", "")
    return wheel


def run_installer(installer: ModuleType, monkeypatch: pytest.MonkeyPatch, wheel: Path, constraints: str) -> Path:
    """Install `checked` with the real pip, from the wheel's folder and nowhere else; returns where it would lie."""
    target = wheel.parent / "site"
    (wheel.parent / "constraints.txt").write_text(constraints)
    monkeypatch.setattr(installer, "CONSTRAINTS", wheel.parent / "constraints.txt")
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(wheel.parent),
        "TARGET": str(target),
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    installer.install("checked")
    return target / "checked.py"


def test_wheel_whose_hash_is_listed_is_installed(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    wheel = tiny_wheel(tmp_path, "answer = 42")
    listed = hashlib.sha256(wheel.read_bytes()).hexdigest()
    installed = run_installer(installer, monkeypatch, wheel, f"checked==1.0\n#   sha256:{listed}\n")
    assert installed.read_text() == "answer = 42"


def test_wheel_that_was_tampered_with_is_refused(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    wheel = tiny_wheel(tmp_path, "answer = 42")
    listed = hashlib.sha256(wheel.read_bytes()).hexdigest()
    tiny_wheel(tmp_path, "answer = 43")
    with pytest.raises(SystemExit) as ended:
        run_installer(installer, monkeypatch, wheel, f"checked==1.0\n#   sha256:{listed}\n")
    assert ended.value.code == 1
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert not (tmp_path / "site").exists()


def test_package_without_a_listed_hash_is_refused_by_name(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    wheel = tiny_wheel(tmp_path, "answer = 42")
    with pytest.raises(
        SystemExit, match=r"no SHA-256 for checked==1\.0, so nothing was installed.*make the hashes anew"
    ):
        run_installer(installer, monkeypatch, wheel, "other==1.0\n")
    assert not (tmp_path / "site").exists()
