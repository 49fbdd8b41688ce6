"""What bench_startup compares with: digits from data to an endpoint without any framework.

    python plain_digits.py PORT

scikit-learn's digits, a PyTorch loop over the network and epochs of examples/01_digits on one process, and uvicorn,
which answers POST /predict. Runs until it is told to stop.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
import uvicorn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import nn

EPOCHS, BATCH, WARMUP = 30, 64, 20


def trained() -> nn.Module:
    torch.manual_seed(0)
    digits: Any = load_digits()
    images = (digits.images / 16).astype(np.float32)
    train_x, rest_x, train_y, rest_y = train_test_split(images, digits.target, train_size=0.7, random_state=0)
    x, y = torch.from_numpy(train_x), torch.from_numpy(train_y)
    network = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003)
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (1 + math.cos(math.pi * step / steps)) / 2)
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        accuracy = (network(torch.from_numpy(rest_x)).argmax(1).numpy() == rest_y).mean()
    assert accuracy > 0.95, accuracy
    return network


def main(port: int) -> None:
    network = trained()

    async def predict(request: Request) -> JSONResponse:
        rows = np.array([row["image"] for row in (await request.json())["instances"]], np.float32) / 16
        with torch.inference_mode():
            return JSONResponse({"predictions": network(torch.from_numpy(rows)).softmax(1).tolist()})

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
