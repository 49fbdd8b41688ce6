"""Draws shapes/<class>/<number>.png: 1,000 small pictures of four shapes, below a folder or in S3.

Shape, size, turn, place and colours are drawn at random from a fixed seed. Two files are no picture, as happens.
Needs: pip install 'raypipe[images]'

    python make_data.py [FOLDER or s3://bucket/prefix]
"""

from __future__ import annotations

import io
import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from raypipe.storage import open_store

SEED = 11
SIZE = 48
"""Height and width in pixels."""
FINER = 4
"""Drawn at so many times the size, then made smaller: smooth edges."""

COUNTS = {"circle": 300, "square": 300, "star": 100, "triangle": 300}
"""Class -> pictures; stars are rare, so a split that takes no care would give val or test few of them."""
CORNERS = {"circle": [1.0] * 60, "square": [1.0] * 4, "star": [1.0, 0.4] * 5, "triangle": [1.0] * 3}
"""Class -> how far its corners are from the middle, all around."""


def picture(corners: list[float], draw: random.Random) -> Image.Image:
    """One shape before a background, RGB [SIZE, SIZE]."""
    whole = SIZE * FINER
    dark, bright = (tuple(draw.randrange(low, low + 110) for _ in range(3)) for low in (0, 140))
    background, colour = draw.sample([dark, bright], 2)
    radius = draw.uniform(0.25, 0.4) * whole
    x, y = (whole / 2 + draw.uniform(-0.6, 0.6) * (whole / 2 - radius) for _ in range(2))
    turn = -math.pi / 2 + draw.uniform(-0.6, 0.6)
    angles = [turn + 2 * math.pi * i / len(corners) for i in range(len(corners))]
    outline = [
        (x + radius * far * math.cos(angle), y + radius * far * math.sin(angle))
        for far, angle in zip(corners, angles, strict=True)
    ]
    image = Image.new("RGB", (whole, whole), background)
    ImageDraw.Draw(image).polygon(outline, fill=colour)
    image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    noise = Image.frombytes("RGB", image.size, draw.randbytes(3 * SIZE * SIZE))
    return Image.blend(image, noise, draw.uniform(0.05, 0.25))


def main(root: str) -> None:
    draw = random.Random(SEED)
    store = open_store(root)  # a folder or S3, with credentials from the usual AWS variables
    for name, count in COUNTS.items():
        for number in range(count):
            file = io.BytesIO()
            picture(CORNERS[name], draw).save(file, "PNG")
            store.write(f"shapes/{name}/{number:03d}.png", file.getvalue())
    store.write("shapes/circle/cut_short.png", store.read("shapes/circle/000.png")[:1000])
    store.write("shapes/square/no_picture.png", b"the photographer was ill\n")
    print(f"{store.uri}/shapes: {sum(COUNTS.values())} pictures, 2 files that are none")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
