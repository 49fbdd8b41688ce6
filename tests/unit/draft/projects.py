"""Projects drafted for data, and files of data to draft them for."""

from __future__ import annotations

import csv
import json
import random
import wave
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from raypipe.cli.main import app
from raypipe.spec.load import load_pipeline
from raypipe.spec.pipeline import PipelineSpec

RANDOM = np.random.default_rng(0)
NUM = 200

runner = CliRunner()


def init(*words: object) -> Result:
    return runner.invoke(app, ["init", *map(str, words)])


def drafted(folder: Path, data: object, *words: object) -> tuple[PipelineSpec, str, dict[str, Any]]:
    """The spec, text and request of a project for data, which is valid and warned of nothing."""
    made = init(folder / "p", "--from", data, *words)
    assert made.exit_code == 0, made.output
    answer = runner.invoke(app, ["validate", str(folder / "p")])
    assert answer.exit_code == 0 and "warning" not in answer.stderr, answer.output
    text = (folder / "p" / "pipeline.yaml").read_text()
    (row,) = json.loads((folder / "p" / "request.json").read_text())["instances"]
    return load_pipeline(folder / "p" / "pipeline.yaml").spec, text, row


def plan(folder: Path) -> str:
    """What `raypipe plan` says of the project."""
    answer = runner.invoke(app, ["plan", str(folder / "p"), "--store", str(folder / "kept")])
    assert answer.exit_code == 0 and "warning" not in answer.stderr, answer.output
    return answer.stdout


def write_csv(path: Path, columns: dict[str, list[Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=delimiter)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return path


def write_picture(path: Path, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 90).convert(mode).save(path)


def write_recording(path: Path, rate: int = 8000, seconds: float = 0.5, num_channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((num_channels, 2, rate, 0, "NONE", ""))
        file.writeframes(random.Random(1).randbytes(2 * num_channels * int(rate * seconds)))
