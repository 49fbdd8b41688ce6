"""What an error of ours says when even its traceback cannot be kept."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raypipe.cli.output import reported

FAILS = """
import errno, os, resource
from raypipe.cli.output import exit_codes
with exit_codes():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    raise KeyError("lost")
"""


def test_error_is_told_though_no_file_takes_its_traceback():
    done = subprocess.run(
        [sys.executable, "-c", FAILS],
        env={"PYTHONPATH": ":".join(sys.path), "TMPDIR": "/nowhere", "PATH": "/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/proc",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: raypipe failed: KeyError: 'lost'\n  try: RAYPIPE_DEBUG=1 shows the traceback")


def test_error_is_told_though_there_is_no_folder_for_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    def command() -> None:
        raise KeyError("lost")

    with pytest.raises(BaseException) as raised:  # noqa: PT011  (typer's own way to leave)
        reported(command)()
    assert getattr(raised.value, "exit_code", None) == 1
    assert "no file could take it (No such file or directory)" in capsys.readouterr().err
