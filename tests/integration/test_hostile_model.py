"""Whoever may write to the store can make a model wrong, but can make no machine run anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_no_forged_artifact_or_spec_runs_anything(tmp_path: Path) -> None:
    program = Path(__file__).with_name("hostile_model.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tried"] >= 200
    assert (found["ran"], found["untyped"], found["accepted"]) == ([], [], [])
    assert found["seen_of_the_callers_own"], "the hook sees what does run"
    assert not list(tmp_path.rglob("OWNED"))
