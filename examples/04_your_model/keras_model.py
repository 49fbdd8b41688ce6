"""The articles' Keras network, as Keras writes it: nothing in here knows of torch or raypipe."""

from __future__ import annotations

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_outputs: int, dropout: float = 0.2) -> keras.Model:
    """Flatten -> Dense 128 relu -> Dropout 0.2 -> Dense; scores without softmax, which the loss brings along."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(dropout),
            layers.Dense(num_outputs),
        ]
    )
