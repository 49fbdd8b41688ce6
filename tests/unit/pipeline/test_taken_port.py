"""A taken port is told before anything slow is imported."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "01_digits" / "pipeline.yaml"

ASK = """
import sys
from raypipe.cli import main
try:
    main.app(sys.argv[1:])
except SystemExit as end:
    print(end.code, sorted({"ray", "torch", "pyarrow", "numpy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("words", [("run", str(EXAMPLE), "--set"), ("serve", "digits", "--port")])
def test_taken_port_is_told_before_ray_and_torch_are_imported(words: tuple[str, ...], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        last = f"serve.port={port}" if words[-1] == "--set" else str(port)
        told = subprocess.run(
            [sys.executable, "-c", ASK, *words, last, "--store", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert told.stdout == "2 []\n", told.stderr
    assert f"serve.port: {port} on 127.0.0.1 is in use" in told.stderr
