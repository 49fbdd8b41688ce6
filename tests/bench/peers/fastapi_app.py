"""FastAPI as someone writes it who wants it fast: no pydantic on the way, orjson, numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from fastapi import Depends, FastAPI, Request, Response
from network import answers, eager, probabilities, traced

app = FastAPI()


def respond(body: bytes, model: Any) -> Response:
    instances = orjson.loads(body)["instances"]
    pixels_BHW = np.array([row["image"] for row in instances], dtype=np.uint8)
    document = {"predictions": answers(probabilities(pixels_BHW, model))}
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@app.post("/traced")
async def of_traced(request: Request) -> Response:
    return respond(await request.body(), traced)


@app.post("/eager")
async def of_eager(request: Request) -> Response:
    return respond(await request.body(), eager)


async def whole(request: Request) -> bytes:
    return await request.body()


@app.post("/threads")
def in_threads(body: bytes = Depends(whole)) -> Response:
    return respond(body, traced)
