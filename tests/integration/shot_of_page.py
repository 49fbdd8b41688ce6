"""Makes examples/02_mnist/page.png: the page of MNIST's endpoint with a drawn seven.

Run from the root: python -m tests.integration.shot_of_page FILE; needs MNIST in ../shared/data/mnist and Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from raypipe.storage.local import LocalFolder
from raypipe.testing.served import listening
from tests.integration.drawn import draw, mnist_app

MAX_COLOURS = 64


def main(out: Path) -> None:
    """Write the picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        tempfile.TemporaryDirectory() as folder,
        listening(mnist_app(LocalFolder(folder)).asgi) as address,
        sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 980, "height": 600}, color_scheme="light")
        page.goto(address)
        page.get_by_role("button", name="Predict").wait_for()
        draw(page, 7)
        page.locator("#answer .verdict").wait_for()
        page.mouse.move(0, 0)
        taken = page.screenshot()
        browser.close()
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(MAX_COLOURS)
    picture.save(out, optimize=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
