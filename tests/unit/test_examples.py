"""What the examples promise before anything starts: scripts and READMEs that name real things, and user networks,
torch and Keras alike, that behave as the loop and the Predictor expect."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.errors import ModelError
from raypipe.model import own_code
from raypipe.model.artifact import write_artifact
from raypipe.model.build import build_model
from raypipe.model.predictor import Predictor
from raypipe.records import Column, DatasetVersion, Signature, Split
from raypipe.spec.load import load_pipeline
from raypipe.spec.model import ImportModel
from raypipe.testing.fakes import MemoryStore

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
YOUR_MODEL = EXAMPLES / "04_your_model"


# --- files -----------------------------------------------------------------------------------------------------------


def test_flats_search_and_gates_name_fields_of_the_file():
    spec = load_pipeline(EXAMPLES / "03_tabular" / "classification.yaml").spec
    assert spec.tune is not None and set(spec.tune.space) == {
        "train.optimizer.lr",
        "model.hidden",
        "model.dropout_frac",
    }


# --- scripts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def said_by_run_sh(tmp_path: Path) -> Any:
    """Runs an example's run.sh from another folder with a `raypipe` on PATH that only notes how it was called, and a
    `python3` that makes no data in the checkout."""
    programs, notes = tmp_path / "bin", tmp_path / "called"
    programs.mkdir()
    for name, body in {"raypipe": f'printf "%s\\n" "$*" >> {notes}', "python3": ":"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)

    def run(folder: Path, *words: str, **env: str) -> list[str]:
        done = subprocess.run(
            ["sh", str(folder / "run.sh"), *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return notes.read_text().splitlines()

    return run


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_run_sh_from_another_folder_runs_every_file_to_its_end(folder: Path, said_by_run_sh: Any):
    called = said_by_run_sh(folder, "--set", "train.epochs=1")
    found = [re.fullmatch(r"run (\S+) --no-wait --set train\.epochs=1", line) for line in called]
    assert {Path(match.group(1)) for match in found if match} == set(folder.glob("*.yaml"))
    assert all(found)
    assert os.access(folder / "run.sh", os.X_OK)


def test_mnist_run_sh_with_a_folder_reads_it_from_where_the_user_is(said_by_run_sh: Any, tmp_path: Path):
    (tmp_path / "mnist").mkdir()
    called = said_by_run_sh(EXAMPLES / "02_mnist", MNIST_ROOT="mnist")
    assert called == [f"run {EXAMPLES}/02_mnist/pipeline.yaml --no-wait --set data.root={tmp_path}/mnist"]


def test_mnist_run_sh_with_a_bucket_passes_it_on(said_by_run_sh: Any):
    called = said_by_run_sh(EXAMPLES / "02_mnist", MNIST_ROOT="s3://bucket/mnist")
    assert called[0].endswith("--set data.root=s3://bucket/mnist")


def test_language_model_run_sh_with_a_text_reads_it_from_where_the_user_is(said_by_run_sh: Any, tmp_path: Path):
    (tmp_path / "texts").mkdir()
    called = said_by_run_sh(EXAMPLES / "07_language_model", TEXT="texts/my own.txt")
    file = EXAMPLES / "07_language_model" / "pipeline.yaml"
    assert called == [
        f"run {file} --no-wait --set data.root={tmp_path}/texts --set data.source.path=my own.txt",
    ]


# --- READMEs ---------------------------------------------------------------------------------------------------------


def code_of(readme: str) -> str:
    """Fenced blocks, indented blocks and inline code of a README, one after another."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```\w*\n.*?^```", "", readme, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", rest), *re.findall(r"^    .*$", rest, flags=re.MULTILINE)])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_readme_of_an_example_names_only_commands_and_files_that_exist(folder: Path):
    import typer.main

    from raypipe.cli.main import app

    group: Any = typer.main.get_command(app)
    code = code_of((folder / "README.md").read_text())
    commands = set(re.findall(r"(?:^|[\s$`])raypipe ([a-z]+)\b", code))
    assert commands - set(group.commands) == set()
    options = {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    written = [line for line in code.splitlines() if re.search(r"(^|\s)(raypipe|\S*run\.sh)\s", line)]
    assert set(re.findall(r"(?<=\s)--[a-z][a-z-]*", "\n".join(written))) - options == set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|[\s`])make ([a-z]+)\b", code)) - targets == set()
    files = re.findall(r"(?:^|[\s`=])(examples/[\w./-]+\.(?:yaml|sh|py))", code)
    assert files and all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_readme_of_an_example_shows_output_and_a_request(folder: Path):
    readme = (folder / "README.md").read_text()
    assert "curl -s" in readme and '"predictions"' in readme
    assert "gates:" in readme, "the summary of a real run"
    assert "Expected" in readme, "what figure a reader should see"


# --- networks of your own --------------------------------------------------------------------------------------------

DIGITS = Signature(
    inputs=(Column(name="image", dtype="uint8", shape=(8, 8)),),
    task="classification",
    target="label",
    classes=tuple(range(10)),
)
EMPTY = Split(num_rows=0, shards=())
DATASET = DatasetVersion(
    name="digits",
    version="v",
    signature=DIGITS,
    splits={"train": EMPTY, "val": EMPTY, "test": EMPTY},
    transforms=({"kind": "scale", "columns": {"image": {}}, "factor": 0.0625, "offset": 0.0},),
    feature_shape=(8, 8),
    content_fingerprint="f",
)
KERAS = ImportModel(kind="import", path="keras_model.py:build")
TORCH = ImportModel(kind="import", path="model.py:build")


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """What these tests import under short names is forgotten again."""
    path, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in {"model", "keras_model", "made"} & (set(sys.modules) - known):
        del sys.modules[name]


def network(spec: ImportModel, seed: int = 0, folder: Path = YOUR_MODEL) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(spec, DIGITS, (8, 8), folder)


def made(folder: Path, source: str) -> ImportModel:
    (folder / "made.py").write_text(source)
    return ImportModel(kind="import", path="made.py:build")


@pytest.mark.parametrize("spec", [TORCH, KERAS], ids=["torch", "keras"])
def test_network_of_the_example_drops_in_training_and_not_in_prediction(spec: ImportModel):
    module, rows = network(spec), torch.rand(16, 8, 8)
    module.train()
    assert not torch.equal(module(rows), module(rows))
    module.eval()
    assert torch.equal(module(rows), module(rows))


def test_keras_dropout_follows_torch_seed_so_that_a_resumed_run_draws_the_same():
    module, rows = network(KERAS).train(), torch.rand(16, 8, 8)
    torch.manual_seed(5)
    first = module(rows)
    torch.manual_seed(5)
    assert torch.equal(first, module(rows))


def test_keras_first_weights_follow_the_seed_and_leave_other_generators_alone():
    random.seed(1)
    np.random.seed(1)
    one, again, other = network(KERAS, 3), network(KERAS, 3), network(KERAS, 4)
    drawn = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    assert drawn == (random.random(), np.random.random())
    weights = [dict(module.named_parameters())["000_kernel"] for module in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_keras_weights_have_the_same_names_whatever_was_built_before():
    assert list(network(KERAS).state_dict()) == list(network(KERAS).state_dict())


def test_keras_model_trains_every_weight_that_is_trainable():
    module = network(KERAS).train()
    before = {name: value.clone() for name, value in module.named_parameters()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    nn.functional.cross_entropy(module(torch.rand(32, 8, 8)), torch.arange(32) % 10).backward()
    optimizer.step()
    changed = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"000_kernel", "001_bias", "003_kernel", "004_bias"}


@pytest.mark.parametrize("spec", [TORCH, KERAS], ids=["torch", "keras"])
def test_network_of_the_example_packaged_and_loaded_answers_the_same(spec: ImportModel):
    store, module = MemoryStore(), network(spec).eval()
    ref = write_artifact(store, "models/a", module, spec, DATASET, code_dir=YOUR_MODEL)
    network(spec, seed=9)  # another model of the same code, built in between
    image = np.random.default_rng(0).integers(0, 17, (5, 8, 8)).astype(np.uint8)
    answer = Predictor.load(store, ref, code_dir=YOUR_MODEL).predict({"image": image})
    with torch.no_grad():
        expected = module(torch.from_numpy(image / np.float32(16))).softmax(dim=1)
    np.testing.assert_allclose(answer.values, expected.numpy(), atol=1e-6)


def test_keras_model_that_is_not_built_is_built_from_the_rows(tmp_path: Path):
    spec = made(
        tmp_path,
        """
import keras
class Net(keras.Model):
    def __init__(self, num_outputs):
        super().__init__()
        self.parts = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(num_outputs)]
    def call(self, rows):
        for part in self.parts:
            rows = part(rows)
        return rows
def build(num_outputs):
    return Net(num_outputs)
""",
    )
    module = network(spec, folder=tmp_path)
    moving = {name: value.clone() for name, value in module.state_dict().items() if "moving" in name}
    module.train()(torch.rand(16, 8, 8))
    state = module.state_dict()
    assert len(moving) == 2 and all(not torch.equal(value, state[name]) for name, value in moving.items())


def test_torch_module_around_a_keras_layer_is_refused(tmp_path: Path):
    spec = made(
        tmp_path,
        """
import keras, torch
def build(num_outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), keras.layers.Dropout(0.5), torch.nn.Linear(64, num_outputs))
""",
    )
    with pytest.raises(ModelError, match="Keras layer inside"):
        network(spec, folder=tmp_path)


def test_network_function_that_fails_is_told_with_its_own_words(tmp_path: Path):
    spec = made(tmp_path, "def build():\n    raise ValueError('17 heads do not divide 64')\n")
    with pytest.raises(ModelError, match=r"made\.py:build failed .* 17 heads do not divide 64"):
        network(spec, folder=tmp_path)


def test_import_of_a_network_chooses_keras_torch_backend():
    own_code.run_module(own_code.read_module(KERAS.path, YOUR_MODEL))
    assert sys.modules["keras"].backend.backend() == "torch"
