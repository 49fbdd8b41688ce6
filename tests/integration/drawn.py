"""Digits drawn with a mouse, networks that read digits, and image files, for the page of an endpoint."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.data.transforms import FittedTransforms
from raypipe.model.build import build_model
from raypipe.serve.app import ModelApp
from raypipe.spec.model import MlpModel
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import ScaleTransform
from raypipe.storage import Store
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import model_app, model_version

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"

Stroke = list[tuple[float, float]]
"""Points as shares of the canvas's width and height."""

DIGITS: dict[int, list[Stroke]] = {
    0: [
        [
            (0.5 + 0.18 * math.sin(turn / 16 * 2 * math.pi), 0.5 - 0.3 * math.cos(turn / 16 * 2 * math.pi))
            for turn in range(17)
        ]
    ],
    1: [[(0.5, 0.2), (0.5, 0.8)]],
    3: [
        [
            (0.35, 0.25),
            (0.5, 0.2),
            (0.63, 0.28),
            (0.6, 0.42),
            (0.47, 0.48),
            (0.62, 0.55),
            (0.65, 0.7),
            (0.5, 0.8),
            (0.35, 0.75),
        ]
    ],
    4: [[(0.42, 0.2), (0.32, 0.55), (0.7, 0.55)], [(0.6, 0.25), (0.58, 0.85)]],
    7: [[(0.3, 0.25), (0.68, 0.25), (0.45, 0.8)]],
}


def draw(page: Any, digit: int) -> None:
    """Draw with the mouse on the page's canvas."""
    page.locator("canvas.pad").scroll_into_view_if_needed()
    box = page.locator("canvas.pad").bounding_box()
    for stroke in DIGITS[digit]:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()


def digits_app(store: Store, serving: ServeSpec | None = None) -> ModelApp:
    """Reads scikit-learn's digits, 8x8 pixels of 0 to 16."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    spec = MlpModel(kind="mlp", hidden=[128])
    return _trained(
        store, "digits", bunch.images.astype(np.uint8), bunch.target.astype(np.int64), 0.0625, spec, 10, serving
    )


def mnist_app(store: Store, num_rows: int = 12_000) -> ModelApp:
    """Reads MNIST's digits: the network of examples/02_mnist, on its first images."""
    images = np.frombuffer(gzip.decompress((MNIST / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((MNIST / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    spec = MlpModel(kind="mlp", hidden=[128], dropout_frac=0.2)
    rows = images.reshape(-1, 28, 28)[:num_rows], labels[:num_rows].astype(np.int64)
    return _trained(store, "mnist", *rows, 1 / 255, spec, 3)


def _trained(
    store: Store,
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    factor: float,
    spec: MlpModel,
    epochs: int,
    serving: ServeSpec | None = None,
) -> ModelApp:
    scale = ScaleTransform(kind="scale", columns=["image"], factor=factor)
    dataset = tiny_dataset(store, {"image": images}, labels, transforms=[scale], name=name)
    signature = dataset.signature.model_copy(update={"target": "label"})
    dataset = dataset.model_copy(update={"signature": signature})
    rows = FittedTransforms.from_state(dataset.transforms).apply({"image": images}, dataset.signature.inputs)
    torch.manual_seed(0)
    module = build_model(spec, dataset.signature, dataset.feature_shape, None).train()
    optimizer = torch.optim.AdamW(module.parameters(), 0.004)
    inputs, targets = torch.from_numpy(rows), torch.from_numpy(labels)
    for _ in range(epochs):
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(inputs[part]), targets[part]).backward()
            optimizer.step()
    model = model_version(store, dataset, name=name, spec=spec, module=module.eval())
    return model_app(store, model, serving or ServeSpec())


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image file, [H, W] or [H, W, 3]."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )
