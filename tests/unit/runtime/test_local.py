"""Notes and tokens of a Ray where the home cannot be written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from raypipe.runtime import local
from raypipe.runtime.private import private_folder


@pytest.fixture(params=["not there", "no entry"])
def no_home(request: pytest.FixtureRequest, private_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(private_dir))
    monkeypatch.setenv("HOME", "/dev/null/home")  # even root cannot make that one
    if request.param == "no entry":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(Path, "home", _no_home)  # a user id without an entry, which the tests are not run as


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_ray_without_a_home_is_found_and_entered_by_other_commands(no_home: None):
    with private_folder() as folder, local.ensure_token(folder):
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == folder and stat.S_IMODE(token.stat().st_mode) == 0o600
        with local.announced("127.0.0.1:6379", folder):
            assert "127.0.0.1:6379" in local.addresses()
            assert local.token_of("127.0.0.1:6379") == str(token)
    assert "127.0.0.1:6379" not in local.addresses() and "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_token_of_the_user_is_made_once_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        with local.ensure_token(tmp_path / "unused"):
            assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    token = tmp_path / ".ray" / "auth_token"
    assert len(token.read_text()) == 64 and stat.S_IMODE(token.stat().st_mode) == 0o600
    assert not (tmp_path / "unused").exists()


def test_token_that_others_could_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("t" * 64)  # as Ray's own command makes it
    token.chmod(0o644)
    with local.ensure_token(tmp_path / "unused"):
        assert stat.S_IMODE(token.stat().st_mode) == 0o600 and token.read_text() == "t" * 64
