"""Lightning's Trainer over a DataLoader of the same tensors; no logger, progress bar or checkpoint, and fused Adam."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it runs as a file

import lightning  # pyright: ignore[reportMissingImports]  (in an environment of its own)
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.bench.trainings.turns import Stopwatch, Turn, Work, take_turns


class Digits(lightning.LightningModule):
    """The network of the articles, as Lightning's own introduction writes one."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr, self.stopwatch = lr, Stopwatch()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def on_train_start(self) -> None:
        self.stopwatch.mark()

    def on_train_epoch_end(self) -> None:
        self.stopwatch.mark()


def prepare(work: Work) -> Callable[[], Turn]:
    rows = TensorDataset(*work.rows())
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # that its DataLoader could have workers: for rows in memory they are slower

    def turn() -> Turn:
        module = Digits(work.lr)
        trainer = lightning.Trainer(
            max_epochs=work.epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(rows, batch_size=work.batch, shuffle=True))
        module.eval()
        with torch.inference_mode():
            return module.stopwatch, work.test_accuracy(module)

    return turn


if __name__ == "__main__":
    take_turns(prepare)
