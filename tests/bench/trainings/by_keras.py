"""Keras 3's `fit` on its torch backend, over the same arrays in memory; nothing printed, no metric asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it runs as a file
os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch

from tests.bench.trainings.turns import Stopwatch, Turn, Work, take_turns


class Ends(keras.callbacks.Callback):
    """How long each epoch took."""

    def __init__(self) -> None:
        super().__init__()
        self.stopwatch = Stopwatch()

    def on_train_begin(self, logs: object = None) -> None:
        self.stopwatch.mark()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.stopwatch.mark()


def prepare(work: Work) -> Callable[[], Turn]:
    images, labels = (values.numpy() for values in work.rows())

    def turn() -> Turn:
        layers = keras.layers
        model = keras.Sequential(
            [
                layers.Input((28, 28)),
                layers.Flatten(),
                layers.Dense(128, activation="relu"),
                layers.Dropout(0.2),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(work.lr), loss=loss)
        ends = Ends()
        quiet: Any = 0  # Keras says that it is a text
        model.fit(images, labels, batch_size=work.batch, epochs=work.epochs, verbose=quiet, callbacks=[ends])
        return ends.stopwatch, work.test_accuracy(lambda x: torch.from_numpy(model.predict(x.numpy(), verbose=quiet)))

    return turn


if __name__ == "__main__":
    take_turns(prepare)
