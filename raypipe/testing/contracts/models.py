"""What every model must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.storage import layout, open_store

OWN_NETWORK = """
from torch import nn

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], num_outputs))
"""


IMAGES = {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y"}
TEXT = {"task": "language_model", "source": {"format": "text_windows", "path": "text.txt", "context_length": 8}}
PAIRS = {
    "task": "sequence_to_sequence",
    "source": {"format": "csv", "path": "pairs.csv"},
    "target": "y",
    "target_tokens": {"max_length": 8},
    "transforms": [
        {"kind": "tokens", "columns": ["source"], "tokenizer": "char", "max_length": 8, "max_vocabulary": 100}
    ],
}


class ModelContract:
    """A model learns, is saved and loaded to the bit, and answers alike wherever it is asked.

    Args:
        name: key in raypipe.model.zoo.ZOO.
        folder: an empty one.
    """

    examples: dict[str, dict[str, Any]] = {
        "linear": {},
        "mlp": {"hidden": [32], "dropout_frac": 0.1},
        "cnn": {"channels": [8], "dropout_frac": 0.1},
        "resnet": {"channels": [8, 16, 32], "blocks_per_stage": 1, "dropout_frac": 0.1},
        "audio_cnn": {"channels": [16, 32], "dropout_frac": 0.1},
        "transformer": {"dim": 32, "num_layers": 1, "num_heads": 4, "dropout_frac": 0.1},
        "gpt": {"dim": 32, "num_layers": 1, "num_heads": 4, "dropout_frac": 0.1},
        "encoder_decoder": {"dim": 32, "num_layers": 1, "num_heads": 4, "dropout_frac": 0.1},
        "import": {"path": "contract_model.py:build"},
    }
    """The model's fields beside `kind`, for images of 8x8 pixels in ten classes, for a text, or for pairs of texts."""

    def __init__(self, name: str, folder: Path) -> None:
        from raypipe.spec.transforms import ScaleTransform
        from raypipe.testing.fakes import tiny_dataset, tiny_pairs, tiny_text

        self._name, self._folder = name, folder
        (folder / "contract_model.py").write_text(OWN_NETWORK)
        self._store = open_store(str(folder / "store"))
        random = np.random.default_rng(0)
        self._metric, self._data = "accuracy", IMAGES
        if name == "gpt":
            self._metric, self._data = "perplexity", TEXT
            words = random.choice(["the cat sat. ", "a dog ran, ", "so it is; "], 500)
            self._dataset = tiny_text(self._store, "".join(words), num_val=100)
            return
        if name == "encoder_decoder":
            self._metric, self._data = "exact_match", PAIRS
            words = random.choice(["cat", "dog", "sat", "ran"], 400)
            self._dataset = tiny_pairs(self._store, [(word, word[::-1]) for word in words.tolist()], num_val=100)
            return
        label_B = np.arange(400) % 10
        pixels = random.integers(0, 256, (10, 8, 8))[label_B] // 2 + random.integers(0, 128, (400, 8, 8))
        scale = ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)
        columns = {"image": pixels.astype(np.uint8)}
        self._dataset = tiny_dataset(self._store, columns, label_B, transforms=[scale], num_val=100)

    def check_learns(self) -> None:
        """Fifteen epochs on classes that are easy to tell apart, or on a few words or sentences again and again."""
        result, _ = self._train("learns", epochs=15)
        found = result.metrics[f"val_{self._metric}"]
        assert found <= 2.0 if self._metric == "perplexity" else found >= 0.9

    def check_seeded(self) -> None:
        """The same seed trains to the same bits."""
        first, again = (self._train(run_id, epochs=1)[0] for run_id in ("first", "again"))
        assert first.artifact.digest == again.artifact.digest

    def check_predicts_alike(self) -> None:
        """Saved, loaded and asked for any number of rows, it answers as it did at the end of training."""
        from raypipe.data.shards import encode_target, load_rows
        from raypipe.model.predictor import Predictor

        result, code_dir = self._train("alike", epochs=1)
        predictor = Predictor.load(self._store, result.artifact, code_dir=code_dir)
        rows = load_rows(self._store, self._dataset, "val")
        whole = predictor.predict(rows.columns)
        measures = predictor.task.measure(encode_target(rows.target, predictor.signature), whole.values)
        found = predictor.task.metrics(measures)[self._metric]
        assert found == pytest.approx(result.metrics[f"val_{self._metric}"], rel=1e-6)
        (column,) = rows.columns.items()
        by_one = [predictor.predict({column[0]: column[1][i : i + 1]}).values for i in range(20)]
        np.testing.assert_allclose(np.concatenate(by_one), whole.values[:20], rtol=1e-6, atol=1e-6)

    def check_no_pickle(self) -> None:
        """No file it leaves in the store is or holds a pickle."""
        from picklescan.scanner import scan_directory_path

        self._train("clean", epochs=1)
        found = scan_directory_path(str(self._folder / "store"))
        assert (found.infected_files, found.issues_count, found.scan_err) == (0, 0, False)
        assert not [path for path in (self._folder / "store").rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]

    def _train(self, run_id: str, *, epochs: int) -> Any:
        from raypipe.spec.pipeline import PipelineSpec
        from raypipe.train.loop import run
        from raypipe.train.order import TrainOrder
        from raypipe.train.rows import World

        spec = PipelineSpec.model_validate(
            {
                "name": "contract",
                "data": self._data,
                "model": {"kind": self._name, **self.examples[self._name]},
                "train": {
                    "epochs": epochs,
                    "global_batch_size": 32,
                    "optimizer": {"kind": "adamw", "lr": 0.01},
                    "clip_grad_norm": 1.0,
                },
            }
        )
        order = TrainOrder(spec, self._dataset, self._store.uri, run_id, layout.artifact(run_id, "train"), self._folder)
        return run(order, World(), lambda event: None), self._folder
