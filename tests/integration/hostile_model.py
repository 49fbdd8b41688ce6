"""Loads forged artifacts and checks forged specs under an audit hook; prints what ran as JSON. A process of its own:
an audit hook cannot be taken off again.

    python hostile_model.py FOLDER
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import ArtifactError, SpecError
from raypipe.model.artifact import DESCRIPTION, WEIGHTS, write_artifact
from raypipe.model.build import build_model
from raypipe.model.predictor import Predictor
from raypipe.records import ArtifactRef
from raypipe.spec.files import check_files
from raypipe.spec.load import load_pipeline
from raypipe.spec.model import ImportModel, LinearModel
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import publish
from raypipe.testing.fakes import tiny_dataset

RUNS_CODE = {"import", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"}

OWN = """
from subprocess import run
from os import *
import shutil
remove = shutil.rmtree
from torch import nn
def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], num_outputs))
"""

PIPELINE = """
name: forged
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: import, path: %s, args: %s}
train: {epochs: 1}
"""

WRITTEN_THERE = ("side.py:build", "nets.side:build", "nets/os.py:system")
"""A pipeline file may name these, for they are the caller's own."""

ARGS: tuple[dict[str, Any], ...] = ({"command": "touch OWNED"}, {"args": "touch OWNED", "shell": True}, {})


def paths() -> Iterator[str]:
    """Well known ones, a share of the standard library and of what is installed, and own files with foreign names."""
    yield from ("os:system", "builtins:exec", "builtins:eval", "subprocess:run", "pickle:loads", "runpy:run_path")
    yield from ("posix:system", "shutil:rmtree", "importlib:import_module", "torch:load", "torch.hub:load")
    yield from ("./os.py:system", "os.path:join", "nets/os.py:system", "model.os:system", "__main__:paths")
    yield from ("../model.py:build", "nets/../model.py:build", "/etc/model.py:build", "model.py:build.__call__")
    yield from ("site-packages/yaml/__init__.py:load", "yaml/loader.py:Loader", "model.py:run", "model.py:remove")
    yield from ("model.py:system", "model:run", "model.py:exec", "side.py:build", "nets.side:build", "nets/side:build")
    yield from ("raypipe.model.artifact:write_artifact", "raypipe/errors.py:did_you_mean", "antigravity:fly")
    draw = random.Random(14)
    modules = draw.sample(sorted(sys.stdlib_module_names), 20)
    installed = sorted(p.stem for p in Path(sysconfig.get_path("purelib")).iterdir() if p.stem.isidentifier())
    modules += draw.sample(installed, min(12, len(installed)))
    for name in modules:
        yield f"{name}:main"
        yield f"{name}/__main__.py:main"


def write_sources(folder: Path) -> None:
    (folder / "nets").mkdir(parents=True)
    (folder / "model.py").write_text(OWN)
    (folder / "side.py").write_text("import os\nos.system('touch OWNED')\ndef build(): ...\n")
    (folder / "nets" / "side.py").write_text("def build(): ...\n")
    (folder / "nets" / "__init__.py").write_text("import os\nos.system('touch OWNED')\n")
    (folder / "nets" / "os.py").write_text("def system(command): ...\n")


def codes(path: str) -> Iterator[dict[str, str]]:
    """What a forger may write as `code`: nothing, a foreign file, its own file with another digest."""
    name = path.partition(":")[0].removesuffix(".py").replace(".", "/")
    yield {}
    yield {"other.py": "0" * 64}
    yield {f"{name}.py": "0" * 64}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main(folder: Path) -> None:
    code_dir = folder / "code"
    write_sources(code_dir)
    store = LocalFolder(str(folder / "store"))
    dataset = tiny_dataset(store, {"x": np.arange(12.0)}, np.arange(12) % 3)
    linear = LinearModel(kind="linear")
    ref = write_artifact(store, "good", build_model(linear, dataset.signature, (1,), None), linear, dataset)
    good = json.loads(store.read(f"good/{DESCRIPTION}"))
    weights = store.read(f"good/{WEIGHTS}")

    def forged(path: str, args: dict[str, Any], code: dict[str, str]) -> ArtifactRef:
        description = {**good, "model": {"kind": "import", "path": path, "args": args}, "code": code}
        files = {DESCRIPTION: json.dumps(description).encode(), WEIGHTS: weights}
        return ArtifactRef(key="forged", digest=publish(store, "forged", files).digest)

    tried, untyped, accepted = 0, [], []

    def attempt(what: str, expected: type[Exception], action: Any) -> None:
        nonlocal tried
        tried += 1
        try:
            action()
            accepted.append(what)
        except expected:
            pass
        except BaseException as error:
            untyped.append(f"{what}: {type(error).__name__}: {error}")

    def load(path: str, args: dict[str, Any], code: dict[str, str], where: Path | None) -> None:
        reference = forged(path, args, code)
        attempt(f"{path} {code} {where}", ArtifactError, lambda: Predictor.load(store, reference, code_dir=where))

    def check(path: str, args: dict[str, Any]) -> None:
        file = code_dir / "p.yaml"
        file.write_text(PIPELINE % (json.dumps(path), json.dumps(args)))
        attempt(f"spec {path}", SpecError, lambda: check_files(load_pipeline(file)))

    Predictor.load(store, ref)  # once each, so that what is imported late is there before the hook is
    load("absent.py:build", {}, {}, code_dir)
    check("absent.py:build", {})
    check("../absent.py:build", {})

    ran: list[str] = []
    on = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if on and event in RUNS_CODE:
            ran.append(f"{event} {str(arguments)[:200]}")

    sys.addaudithook(hook)
    tried = 0
    folders = itertools.cycle((None, code_dir, Path(sysconfig.get_path("purelib")), Path("/"), folder))
    for path in paths():
        for args, code in zip(ARGS, codes(path), strict=True):
            load(path, args, code, next(folders))
        if path not in WRITTEN_THERE:
            check(path, ARGS[0])
    own = {"model.py": digest(code_dir / "model.py")}
    for path in ("model.py:run", "model.py:system", "model.py:remove", "model:run", "model.py:nn"):
        load(path, ARGS[1], own, code_dir)
    load("nets.side:build", {}, {"nets/side.py": digest(code_dir / "nets" / "side.py")}, code_dir)
    load("model.py:build", {}, own, None)
    refused = {"tried": tried, "ran": list(ran), "untyped": untyped, "accepted": accepted}

    spec = ImportModel(kind="import", path="model.py:build")
    module = build_model(spec, dataset.signature, (1,), code_dir)
    ref = write_artifact(store, "own", module, spec, dataset, code_dir=code_dir)
    Predictor.load(store, ref, code_dir=code_dir)
    on = False
    print(json.dumps({**refused, "seen_of_the_callers_own": [e for e in ran if "model.py" in e]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
