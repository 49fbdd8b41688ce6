"""Flask as the articles write it."""

from __future__ import annotations

import numpy as np
from flask import Flask, Response, jsonify, request
from network import plain_answers, probabilities

app = Flask(__name__)


@app.post("/predict")
def predict() -> Response:
    pixels_BHW = np.array([row["image"] for row in request.get_json()["instances"]], dtype=np.uint8)
    return jsonify(predictions=plain_answers(probabilities(pixels_BHW)))
