"""What a fresh process imports, in which order, and what is said meanwhile: each takes a second, so it is told here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "01_digits" / "pipeline.yaml"


def run_python(code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_driver_of_a_whole_run_brings_no_torch():
    """Its workers, scoring tasks and replicas import it, each for seconds; this process only tells them what to do."""
    rooms = (
        "pipeline.api",
        "data.stage",
        "train.stage",
        "tune.stage",
        "evaluate.stage",
        "registry.stage",
        "serve.stage",
    )
    imports = "\n".join(f"import raypipe.{room}" for room in rooms)
    done = run_python(f"{imports}\nimport sys; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


TRAINING_ON_A_CLUSTER = """
import pickle
import sys
from ray import cloudpickle
from raypipe.train import ray_train, stopping
from raypipe.train.group import GroupConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

def reaches_another_process(known):
    return pickle.loads(cloudpickle.dumps(known))

trainer = DataParallelTrainer(ray_train._worker, train_loop_config={}, backend_config=GroupConfig())
reaches_another_process(GroupConfig()).backend_cls()
reaches_another_process(trainer._get_train_func())
reaches_another_process(stopping.StopAtKnownError())
print("torch" in sys.modules)
"""


def test_driver_and_ray_trains_controller_bring_no_torch():
    """What Ray Train's controller is sent is read here as it is there."""
    done = run_python(TRAINING_ON_A_CLUSTER)
    assert done.stdout == "False\n", done.stderr


APPLICATION = """
import sys
from raypipe.serve.container import worker
from raypipe.serve.direct import answer_directly
from raypipe.serve.replica_port import keep_on_loopback
keep_on_loopback(), answer_directly(None)
print("ray" in sys.modules)
"""


def test_application_outside_of_ray_imports_no_ray():
    done = run_python(APPLICATION)
    assert done.stdout == "False\n", done.stderr


IMPORTED_BEFORE = "import ray.data; from raypipe.runtime import environment; environment.hush()"
IMPORTED_AFTER = "from raypipe.runtime import environment as e; e.hush(); os.environ.update(e.ANY_ENV); import ray.data"


@pytest.mark.parametrize("steps", [IMPORTED_BEFORE, IMPORTED_AFTER], ids=["before", "after"])
def test_ray_data_says_nothing_between_our_lines_whenever_it_is_imported(steps: str):
    say = "logger = logging.getLogger('ray.data.x'); logger.info('Running Dataset'); logger.error('Task 1 failed')"
    done = run_python(f"import logging, os; {steps}; {say}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
        done = run_python(ASK, *words, last, "--store", str(tmp_path))
    assert done.stdout == "2 []\n", done.stderr
    assert f"serve.port: {port} on 127.0.0.1 is in use" in done.stderr
