"""What the training benchmarks share: rows on disk for every side, and sides that take turns.

A side is a process, or as many as `torchrun` starts, that lives through the whole run and trains when it is told to
(trainings/turns.py). So all sides pay their imports once and outside of what is counted, and what else the machine does
falls on all of them.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.data.next_tokens import language_of
from raypipe.data.transforms import FittedTransforms
from raypipe.records import DatasetVersion, Signature
from raypipe.spec.text_transforms import TokensTransform
from raypipe.spec.transforms import ScaleTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.resident import Resident
from raypipe.train.rows import StoredSplit, World
from tests.bench.loading import say
from tests.bench.trainings.turns import Work

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".venv-trainers" / "bin" / "python"
"""Keras and Lightning: `make install-trainers`."""

MNIST_MODEL = {"kind": "mlp", "hidden": [128], "dropout_frac": 0.2}
RESNET_MODEL = {"kind": "resnet", "channels": [16, 32], "blocks_per_stage": 1}
GPT_MODEL = {"kind": "gpt", "dim": 128, "num_layers": 4, "num_heads": 4}
CONTEXT = 64
"""Tokens that the GPT looks back on."""

Images = tuple[np.ndarray, np.ndarray]


class Side:
    """One way to train.

    Args:
        name: as it is told.
        script: in trainings/.
        num_workers: 1 is a plain process; more are started by torchrun.
    """

    def __init__(self, name: str, script: str, work: Work, *, python: Path | None = None, num_workers: int = 1) -> None:
        self.name, self._num_workers = name, num_workers
        self._process: subprocess.Popen[str] | None = None
        words = [str(HERE / "trainings" / script), json.dumps({**asdict(work), "folder": str(work.folder)})]
        if num_workers > 1:
            torchrun = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={num_workers}"]
            words = [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", *words]
        self._command = [str(python or sys.executable), *words]
        self._env = {**os.environ, "OMP_NUM_THREADS": str(work.threads), "GLOO_SOCKET_IFNAME": "lo"}

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._env, text=True, cwd=ROOT
        )

    def turn(self) -> dict[str, Any]:
        """Train once; what the side says of it."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("train\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended: {' '.join(self._command)}")

    def close(self) -> None:
        """Its input ends, and so does it."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait(20)


def compare(what: Mapping[str, object], sides: Sequence[Side], rounds: int, num_rows: int) -> dict[str, Any]:
    """Let the sides train in turn, the first of which is ours.

    Every epoch of a turn but its first counts.

    Args:
        what: said with each line.
        num_rows: of an epoch.
    Returns:
        rows_per_s, epoch_s, cpu_s: of each side, the median over all epochs; cpu_s of rank 0.
        ratio: of each other side, how many times its rows ours trains in a second: the median over rounds, of the turns
            of a round, which lie close together.
        cpu_ratio: the same in a second of CPU time, which what else the machine does changes little.
        test_accuracy: of each side's last turn.
    """
    epochs: dict[str, dict[str, list[list[float]]]] = {side.name: {"epoch_s": [], "epoch_cpu_s": []} for side in sides}
    accuracy: dict[str, float] = {}
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(closing(side))
            side.start()
        for number in range(rounds):
            first = number % len(sides)
            for side in [*sides[first:], *sides[:first]]:
                told = side.turn()
                for kind, turns in epochs[side.name].items():
                    turns.append(told[kind][1:])
                    told[kind] = [round(seconds, 4) for seconds in told[kind]]
                if (right := told.pop("test_accuracy")) is not None:
                    accuracy[side.name] = round(right, 4)
                say(round=number, side=side.name, **what, load=round(os.getloadavg()[0], 1), **told)

    def ratio(name: str, kind: str) -> float:
        medians = [[statistics.median(turn) for turn in epochs[side][kind]] for side in (name, sides[0].name)]
        return round(statistics.median(theirs / ours for theirs, ours in zip(*medians, strict=True)), 3)

    def seconds(kind: str) -> dict[str, float]:
        return {name: statistics.median(s for turn in turns[kind] for s in turn) for name, turns in epochs.items()}

    found: dict[str, Any] = {
        "rows_per_s": {name: round(num_rows / s) for name, s in seconds("epoch_s").items()},
        "epoch_s": {name: round(s, 4) for name, s in seconds("epoch_s").items()},
        "cpu_s": {name: round(s, 4) for name, s in seconds("epoch_cpu_s").items()},
        "ratio": {side.name: ratio(side.name, "epoch_s") for side in sides[1:]},
        "cpu_ratio": {side.name: ratio(side.name, "epoch_cpu_s") for side in sides[1:]},
        "load_1min": round(os.getloadavg()[0], 1),
    }
    return {**found, "test_accuracy": accuracy} if accuracy else found


# ---- rows


def digits(folder: Path, num_rows: int | None = None) -> tuple[DatasetVersion, bool]:
    """MNIST in a store and as plain arrays in `folder`: its first rows, or all. Whether they are the real ones."""
    train, test, is_mnist = load_mnist()
    train = (train[0][:num_rows], train[1][:num_rows])
    folder.mkdir()
    dataset = tiny_dataset(
        LocalFolder(str(folder / "store")),
        {"image": np.concatenate([train[0], test[0]])},
        np.concatenate([train[1], test[1]]),
        transforms=[ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)],
        num_test=len(test[1]),
        rows_per_shard=100_000,
    )
    _keep(folder, dataset, ("train", "test"))
    return dataset, is_mnist


def text(folder: Path, num_rows: int) -> DatasetVersion:
    """Rows of CONTEXT characters and the one that follows, of Shakespeare where he is here, else drawn."""
    path = next(data_folder("shakespeare").glob("*.txt"), None)
    drawn = np.random.default_rng(0).integers(97, 97 + 26, num_rows * CONTEXT + 1).astype(np.uint8).tobytes()
    letters = (path.read_text() if path else drawn.decode())[: num_rows * CONTEXT + 1]
    rows = [letters[start : start + CONTEXT + 1] for start in range(0, len(letters) - CONTEXT, CONTEXT)]
    folder.mkdir()
    tokens = TokensTransform(
        kind="tokens", columns=["text"], tokenizer="char", max_length=CONTEXT + 1, max_vocabulary=256
    )
    store = LocalFolder(str(folder / "store"))
    made = tiny_dataset(
        store, {"text": np.array(rows, dtype=object)}, np.zeros(len(rows), np.int64), transforms=[tokens]
    )
    signature = Signature(inputs=made.signature.inputs, task="language_model", target="text")
    language = language_of(signature, FittedTransforms.from_state(made.transforms))
    signature = signature.model_copy(update={"language": language})
    dataset = made.model_copy(update={"signature": signature, "feature_shape": (CONTEXT,)})
    _keep(folder, dataset, ("train",))
    return dataset


def numbers(folder: Path, num_rows: int) -> DatasetVersion:
    """Rows of four numbers in two classes: next to nothing to compute."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_rows, 4)).astype(np.float32)
    folder.mkdir()
    store = LocalFolder(str(folder / "store"))
    dataset = tiny_dataset(store, {"x": x}, (x[:, 0] > 0).astype(np.int64), rows_per_shard=100_000)
    _keep(folder, dataset, ("train",))
    return dataset


def _keep(folder: Path, dataset: DatasetVersion, splits: Sequence[str]) -> None:
    """The dataset's record, and its rows as the model reads them."""
    import torch

    (folder / "dataset.json").write_text(dataset.model_dump_json())
    store = LocalFolder(str(folder / "store"))
    for split in splits:
        rows = Resident(StoredSplit(store, dataset, split), World(), 10**6, home=torch.device("cpu")).rows
        np.save(folder / f"{split}-x.npy", rows.features.numpy())
        np.save(folder / f"{split}-y.npy", rows.target.numpy())


def data_folder(name: str) -> Path:
    """$RAYPIPE_MNIST, $RAYPIPE_SHAKESPEARE, or where they lie beside the project."""
    return Path(os.environ.get(f"RAYPIPE_{name.upper()}", ROOT.parent / "shared" / "data" / name))


def load_mnist() -> tuple[Images, Images, bool]:
    """Train and test, each images uint8 [B, 28, 28] and labels int64 [B]; whether they are the real ones."""
    folder = data_folder("mnist")
    if not folder.is_dir():
        random = np.random.default_rng(0)
        made = [(random.integers(0, 256, (n, 28, 28), np.uint8), random.integers(0, 10, n)) for n in (60_000, 10_000)]
        return made[0], made[1], False
    return _read_idx(folder, "train"), _read_idx(folder, "t10k"), True


def _read_idx(folder: Path, split: str) -> Images:
    images, labels = (next(folder.glob(f"{split}-{kind}")) for kind in ("images?idx3-ubyte.gz", "labels?idx1-ubyte.gz"))
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16)
    answers = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
    return pixels.reshape(-1, 28, 28).copy(), answers.astype(np.int64)
