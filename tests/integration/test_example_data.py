"""The files and data of the examples, made and read by processes of their own: valid, light, every time the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*/*.yaml"))
MAX_VALIDATE_CPU_S = 2.0

VALIDATE_ALL = """
import json, sys, time
from raypipe.spec.files import check_files
from raypipe.spec.load import load_pipeline
for path, *overrides in json.loads(sys.argv[1]):
    check_files(load_pipeline(path, overrides))
heavy = [name for name in ("ray", "torch", "pandas", "pyarrow", "boto3", "keras") if name in sys.modules]
print(json.dumps({"cpu_s": time.process_time(), "heavy": heavy}))
"""


MADE = {
    "03_tabular": "data",
    "05_images": "",
    "06_audio": "sounds",
    "08_translation": "phrases.csv",
    "09_several_answers": "data",
}
"""Example that makes its data -> the folder or file that it is told, below its data.root."""


def make(example: str, root: Path) -> Path:
    """The root, with the data of an example below a folder of its name."""
    subprocess.run(
        [sys.executable, str(EXAMPLES / example / "make_data.py"), str(root / example / MADE[example])],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return root


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all examples that make theirs."""
    root = tmp_path_factory.mktemp("examples")
    for example in MADE:
        make(example, root)
    return root


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_example_file_validates_within_two_seconds_and_without_heavy_packages(data_root: Path, tmp_path: Path):
    (tmp_path / "input.txt").write_text("A text that the user has.\n")
    roots = {**{example: data_root / example for example in MADE}, "07_language_model": tmp_path}
    told = [[f"data.root={roots[file.parent.name]}"] if file.parent.name in roots else [] for file in FILES]
    asked = [[str(file), *root] for file, root in zip(FILES, told, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", VALIDATE_ALL, json.dumps(asked)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["heavy"] == []
    assert told["cpu_s"] < MAX_VALIDATE_CPU_S, "CPU seconds of one process that checked all files"


def test_data_of_examples_made_twice_are_the_same_bytes(data_root: Path, tmp_path: Path):
    for example in MADE:
        make(example, tmp_path)
    first = digests(data_root)
    assert first == digests(tmp_path)
    assert len(first) == 2 + 1002 + 600 + 1 + 1, "tables, pictures, sounds, phrases, survey"
