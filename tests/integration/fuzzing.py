"""Schemathesis against a replica behind HAProxy: requests made from our OpenAPI document, and damaged ones beside them.

Schemathesis itself checks the answers: no 5xx; a status, headers and a body that the document names; 405 with Allow for
other methods; and no 2xx for what the document forbids. It is not asked whether all that the document allows is
answered: JSON Schema cannot say that columns are of one length, or what CSV holds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from raypipe.model.artifact import write_artifact
from raypipe.model.build import build_model
from raypipe.records import EvaluationReport, TrainResult
from raypipe.registry.stage import register
from raypipe.spec.data import Task
from raypipe.spec.model import MlpModel
from raypipe.spec.registry import RegistrySpec
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage import Store, layout, open_store
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context, tiny_dataset
from tests.integration.containers import Running

RULES = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 408, 413, 415, 422, 429]
"""


@dataclass(frozen=True)
class Fuzzed:
    """What one run of schemathesis found.

    Attributes:
        num_requests: answers that were checked.
        problems: each failure in words, with the operation; empty where everything held.
    """

    num_requests: int
    problems: list[str]


def fuzz(running: Running, folder: Path, *, examples: int, seed: int, phases: str, timeout_s: float) -> Fuzzed:
    """One run.

    Args:
        examples: made for each operation and phase, at most.
        phases: schemathesis's, comma-separated.
    """
    rules, report, told = folder / "rules.toml", folder / f"report-{seed}.json", folder / f"told-{seed}.txt"
    rules.write_text(RULES)
    words = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(rules)),
        *("run", f"{running.url}/openapi.json", "--phases", phases, "--max-examples", str(examples)),
        *("--seed", str(seed), "--generation-database", "none", "--continue-on-failure", "--no-shrink", "--no-color"),
        *("--request-timeout", "20", "--report", "json", "--report-json-path", str(report)),
    ]
    with open(told, "wb") as output:
        subprocess.run(words, cwd=folder, stdout=output, stderr=output, timeout=timeout_s, check=False)
    assert report.exists(), told.read_text(errors="replace")[:2000]
    found = json.loads(report.read_text())
    problems = [f"{each['title']}: {', '.join(each['operations'])}" for each in found["failures"]]
    problems += [each["title"] for each in found["errors"]]
    if found["stop_reason"] != "completed":
        problems.append(f"it stopped: {found['stop_reason']}")
    if problems:
        problems.append(excerpt(told.read_text(errors="replace")))
    return Fuzzed(found["test_cases"]["generated"], problems)


def excerpt(told: str) -> str:
    """What schemathesis says about its failures, without the bodies of many kilobytes."""
    return "\n".join(line[:400] for line in told.splitlines() if line.strip())[-6000:]


def registered(folder: Path, task: Task) -> Store:
    """A registry with one model: of a table of numbers and a category a number or labels, or of small pictures a
    class."""
    random = np.random.default_rng(0)
    store = open_store(str(folder))
    if task != "classification":
        columns = {
            "age": random.normal(40, 9, 60).astype(np.float32),
            "rooms": random.integers(1, 9, 60).astype(np.int16),
            "color": np.array(["red", "blue", "green"] * 20, object),
        }
        transforms = [
            StandardizeTransform(kind="standardize", columns=["age", "rooms"]),
            OneHotTransform(kind="one_hot", columns=["color"]),
        ]
        labels = np.array(["a;b", "", "b;c d"] * 20, object)
        target = random.normal(size=60) if task == "regression" else labels
    else:
        columns, transforms = {"image": random.integers(0, 256, (60, 4, 3), np.uint8)}, []
        target = np.array(["cat", "dog", "fish"] * 20, object)
    dataset = tiny_dataset(store, columns, target, task=task, transforms=transforms, num_test=20)
    spec = MlpModel(kind="mlp", hidden=[8])
    network = build_model(spec, dataset.signature, dataset.feature_shape, None)
    artifact = write_artifact(store, layout.artifact("rtest", "train"), network, spec, dataset)
    history = tiny.trained(open_store(str(folder / "other")), tiny.dataset(open_store(str(folder / "other"))))
    trained: TrainResult = history.model_copy(update={"artifact": artifact, "dataset": dataset.version})
    report = EvaluationReport(artifact=artifact, dataset=dataset.version, num_rows=20, metrics={"accuracy": 0.5})
    register(RegistrySpec(), "fuzzed", trained, dataset, report, run_context(store))
    return store


def memory_bytes(running: Running) -> int:
    """Of all processes of the container, resident."""
    return sum(process.memory_info().rss for process in running.processes() if process.status() != psutil.STATUS_ZOMBIE)
