"""The page that an endpoint's address shows, in a real browser: drawn, typed, dropped, by keys alone, with a key."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import subprocess
import sys
import wave
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright

from raypipe.serve.app import ModelApp
from raypipe.serve.keys import line_of, new_key
from raypipe.spec.access import AuthSpec
from raypipe.spec.serve import ServeSpec
from raypipe.spec.transforms import (
    ImputeTransform,
    LogMelTransform,
    NormalizeTransform,
    OneHotTransform,
    StandardizeTransform,
)
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import listening, model_app, model_version
from tests.integration.drawn import MNIST, digits_app, draw, mnist_app, png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make install-e2e)"),
]

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        # No sandbox: it needs rights that containers withhold, and the page is our own.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def digits(store: LocalFolder) -> Iterator[tuple[ModelApp, str]]:
    """Handwritten digits of 8x8 pixels: the replica and its address."""
    app = digits_app(store)
    with listening(app.asgi) as address:
        yield app, address


@pytest.fixture(scope="module")
def prices(store: LocalFolder) -> Iterator[tuple[ModelApp, str]]:
    """A regression on a table: a number, one that may be missing, a category, a yes or no."""
    random = np.random.default_rng(1)
    rooms = random.integers(1, 9, 90).astype(np.float64)
    rooms[::7] = np.nan
    columns = {
        "area": random.normal(80, 20, 90),
        "rooms": rooms,
        "it's <town>": np.array(["Ulm", "Bonn", "Köln"] * 30, object),
        "garden": random.integers(0, 2, 90).astype(bool),
    }
    transforms = [
        ImputeTransform(kind="impute", columns=["rooms"], strategy="median"),
        StandardizeTransform(kind="standardize", columns=["area", "rooms"]),
        OneHotTransform(kind="one_hot", columns=["it's <town>"]),
    ]
    dataset = tiny_dataset(
        store, columns, columns["area"] * 3000.0, task="regression", transforms=transforms, name="prices"
    )
    inputs = tuple(c.model_copy(update={"nullable": c.name == "rooms"}) for c in dataset.signature.inputs)
    signature = dataset.signature.model_copy(update={"inputs": inputs, "target": "price"})
    dataset = dataset.model_copy(update={"signature": signature})
    app = model_app(store, model_version(store, dataset, name="prices"))
    with listening(app.asgi) as address:
        yield app, address


@contextlib.contextmanager
def opened(browser: Browser, address: str, begins: str = "Predict", **context: Any) -> Iterator[SimpleNamespace]:
    """A page, all it asked for and all it complained of.

    Args:
        begins: a button that is there once the page is ready.
    """
    seen = SimpleNamespace(errors=[], requests=[], bodies=[], page=browser.new_page(**context))
    page: Page = seen.page
    page.set_default_timeout(20_000)
    page.on("console", lambda message: seen.errors.append(message.text))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("request", lambda request: seen.bodies.append(request.post_data) if request.method == "POST" else None)
    page.goto(address)
    page.get_by_role("button", name=begins).wait_for()
    yield seen
    page.close()


def verdict(page: Page) -> Any:
    return page.locator("#answer .verdict strong")


@pytest.mark.parametrize("digit", [0, 1, 3])
def test_page_drawn_digit_is_recognised(digit: int, digits: tuple[ModelApp, str], browser: Browser):
    with opened(browser, digits[1]) as seen:
        draw(seen.page, digit)
        expect(verdict(seen.page)).to_have_text(str(digit))
        bars = seen.page.locator(".bars li")
        assert bars.count() == 10 and "%" in bars.nth(digit).inner_text()
        (body,) = seen.bodies
        pixels = np.array(json.loads(body)["instances"][0]["image"])
        assert pixels.shape == (8, 8) and 9 <= pixels.max() <= 16, "the values that the model scales by 1/16"
        assert seen.errors == []


def test_page_drawn_seven_is_recognised_by_the_network_of_mnist(store: LocalFolder, browser: Browser):
    if not MNIST.is_dir():
        pytest.skip("no MNIST in ../shared/data/mnist")
    with listening(mnist_app(store).asgi) as address, opened(browser, address) as seen:
        draw(seen.page, 7)
        expect(verdict(seen.page)).to_have_text("7")
        pixels = np.array(json.loads(seen.bodies[-1])["instances"][0]["image"])
        inked = np.argwhere(pixels > 0)
        assert (np.ptp(inked, axis=0).max() + 1) in (20, 21, 22), "as tall as MNIST's digits"
        middle = (inked * pixels[pixels > 0][:, None]).sum(axis=0) / pixels.sum()
        assert np.allclose(middle, 13.5, atol=0.6), "its mass in the middle"


def test_page_by_keys_alone_draws_and_types(digits: tuple[ModelApp, str], browser: Browser):
    with opened(browser, digits[1]) as seen:
        keys = seen.page.keyboard
        for _ in range(10):
            keys.press("Tab")
            if seen.page.evaluate("document.activeElement.tagName") == "CANVAS":
                break
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", " ", *["ArrowDown"] * 6, " ", "Enter"):
            keys.press(key)
        expect(verdict(seen.page)).to_have_text("1")
        assert "Pen up at row" in seen.page.locator(".field [role=status]").first.inner_text()
        keys.press("Delete")
        for _ in range(3):
            keys.press("Tab")  # clear, file, the values
        keys.press("Enter")
        for _ in range(4):
            keys.press("Tab")  # ground, ink, fit, the numbers
        zero = digits_pixels(0)
        keys.press("Control+A")
        keys.type(" ".join(map(str, zero.ravel())))
        keys.press("Tab")
        keys.press("Enter")
        expect(verdict(seen.page)).to_have_text("0")
        assert json.loads(seen.bodies[-1])["instances"][0]["image"] == zero.tolist()
        assert seen.errors == []


def digits_pixels(digit: int) -> Any:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.images[list(bunch.target).index(digit)].astype(np.uint8)


def test_page_picture_file_is_read_pixel_for_pixel_and_a_photo_is_fitted(
    digits: tuple[ModelApp, str], browser: Browser
):
    with opened(browser, digits[1]) as seen:
        page: Page = seen.page
        file: FilePayload = {
            "name": "six.png",
            "mimeType": "image/png",
            "buffer": png(np.round(digits_pixels(6) * 15.9).astype(np.uint8)),
        }
        page.locator("input[type=file]").set_input_files(file)
        expect(verdict(page)).to_have_text("6")
        assert json.loads(seen.bodies[-1])["instances"][0]["image"] == digits_pixels(6).tolist()

        light = 255 - np.kron(np.round(digits_pixels(4) * 15.9).astype(np.uint8), np.ones((16, 16), np.uint8))
        drop(page, "four.png", "image/png", png(light))  # dark on light, 128x128
        expect(verdict(page)).to_have_text("4")
        page.get_by_text("128 × 128 pixels, resized to 8 × 8; light and dark were exchanged").wait_for()

        drop(page, "notes.txt", "text/plain", b"no picture")
        page.get_by_text("notes.txt: is no picture that this browser reads").wait_for()
        assert seen.errors == []


def test_page_picture_in_colour_is_read_pixel_for_pixel(store: LocalFolder, browser: Browser):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    app = model_app(
        store, model_version(store, tiny_dataset(store, {"photo": pictures}, np.arange(6) % 2), name="photos")
    )
    with listening(app.asgi) as address, opened(browser, address) as seen:
        assert seen.page.locator("canvas.pad").count() == 0
        drop(seen.page, "photo.png", "image/png", png(pictures[3]))
        verdict(seen.page).wait_for()
        assert json.loads(seen.bodies[-1])["instances"][0]["photo"] == pictures[3].tolist()
        assert seen.errors == []


def test_page_of_a_wide_table_takes_the_row_as_json(store: LocalFolder, browser: Browser):
    columns = {f"x{i}": np.random.default_rng(i).normal(size=12) for i in range(60)}
    app = model_app(store, model_version(store, tiny_dataset(store, columns, np.arange(12) % 2), name="wide"))
    with listening(app.asgi) as address, opened(browser, address) as seen:
        area = seen.page.get_by_label("The row")
        row = {**json.loads(area.input_value()), "x7": -2.5}
        area.fill(json.dumps(row))
        seen.page.get_by_role("button", name="Predict").click()
        verdict(seen.page).wait_for()
        assert json.loads(seen.bodies[-1]) == {"instances": [row]}
        area.fill("{")
        seen.page.get_by_role("button", name="Predict").click()
        expect(seen.page.locator("#answer .wrong")).to_contain_text("The row: is not valid JSON")


def drop(page: Page, name: str, kind: str, data: bytes) -> None:
    """Drop a file on the page, as from a file manager."""
    transfer = page.evaluate_handle(
        """([name, type, text]) => {
            const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type }));
            return transfer;
        }""",
        [name, kind, base64.b64encode(data).decode()],
    )
    page.dispatch_event(".zone", "drop", {"dataTransfer": transfer})


def test_page_form_of_a_table_is_answered_and_its_calls_give_the_same(prices: tuple[ModelApp, str], browser: Browser):
    app, address = prices
    with opened(browser, address) as seen:
        page: Page = seen.page
        page.get_by_label("area", exact=True).fill("104.5")
        page.get_by_label("rooms has no value").check()
        page.get_by_label("it's <town>").select_option("Köln")
        page.get_by_label("garden").select_option("true")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .verdict")).to_contain_text("price: ")
        row = {"area": 104.5, "rooms": None, "it's <town>": "Köln", "garden": True}
        assert json.loads(seen.bodies[-1]) == {"instances": [row]}
        expected = float(app.predictor.predict(app.served.checker.rows([row])).values[0])
        assert float(verdict(page).inner_text()) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        shell = subprocess.run(
            ["bash", "-c", page.locator("#curl").inner_text()], capture_output=True, timeout=30, check=True
        )
        python = subprocess.run(
            [sys.executable, "-c", page.locator("#python").inner_text()],
            capture_output=True,
            timeout=60,
            check=True,
            text=True,
        )
        answer = json.loads(shell.stdout)
        assert answer["predictions"] == [pytest.approx(expected)] and python.stdout.strip() == str(answer)
        assert seen.errors == []


def test_page_says_in_words_what_is_wrong(prices: tuple[ModelApp, str], browser: Browser):
    with opened(browser, prices[1]) as seen:
        page: Page = seen.page
        page.get_by_label("area", exact=True).fill("1e300")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .wrong")).to_contain_text("'area'")
        assert page.locator("#answer .quiet").inner_text()
        page.get_by_label("area", exact=True).fill("90")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .verdict")).to_contain_text("price: ")


def test_page_sound_file_is_sent_sample_for_sample(store: LocalFolder, browser: Browser):
    rate, num_samples = 8000, 4000
    sounds = np.random.default_rng(0).normal(scale=0.1, size=(6, num_samples)).astype(np.float32)
    transforms = [
        LogMelTransform(kind="log_mel", columns=["audio"], sample_rate=rate, num_mels=16, window_samples=256),
        NormalizeTransform(kind="normalize", columns=["audio"]),
    ]
    dataset = tiny_dataset(store, {"audio": sounds}, np.arange(6) % 2, transforms=transforms, name="sounds")
    stereo = (np.random.default_rng(1).normal(scale=3000, size=(5000, 2))).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, rate, len(stereo), "NONE", ""))
        out.writeframes(stereo.tobytes())
    app = model_app(store, model_version(store, dataset, name="sounds"))
    with listening(app.asgi) as address, opened(browser, address) as seen:
        chosen = {"name": "bell.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}
        seen.page.locator("input[type=file]").set_input_files(chosen)
        verdict(seen.page).wait_for()
        seen.page.get_by_text("0.625 s; the first 0.5 s are read").wait_for()
        sent = np.array(json.loads(seen.bodies[-1])["instances"][0]["audio"])
        assert np.allclose(sent, stereo[:num_samples].mean(axis=1) / 32768, atol=1e-4)
        assert "@request.json" in seen.page.locator("#curl").inner_text()
        with seen.page.expect_download() as download:
            seen.page.get_by_role("button", name="Save the body").click()
        assert json.loads(Path(download.value.path()).read_text()) == json.loads(seen.bodies[-1])
        assert seen.errors == []


@pytest.mark.parametrize("path", ["/v1/digits", "/v1/digits/"])
def test_page_works_below_a_prefix(path: str, digits: tuple[ModelApp, str], browser: Browser):
    with listening(below("/v1/digits", digits[0].asgi)) as address, opened(browser, address + path) as seen:
        draw(seen.page, 1)
        expect(verdict(seen.page)).to_have_text("1")
        assert f"{address}/v1/digits/predict" in seen.page.locator("#curl").inner_text()
        seen.page.get_by_role("link", name="Reference").click()
        expect(seen.page.locator("code").first).to_contain_text(f"{address}/v1/digits/predict")
        seen.page.get_by_role("link", name="Try it").click()
        seen.page.locator("canvas.pad").wait_for()
        assert seen.errors == [] and {url.startswith(address + "/v1/digits") for url in seen.requests} == {True}


def below(prefix: str, app: Asgi) -> Asgi:
    """As Ray Serve hands over what lies below an application's route prefix; nothing else is there."""

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith(prefix), scope["path"]
        await app({**scope, "root_path": prefix}, receive, send)

    return routed


def test_page_asks_for_the_key_where_the_endpoint_does(
    store: LocalFolder, browser: Browser, monkeypatch: pytest.MonkeyPatch
):
    key = new_key()
    monkeypatch.setenv("PAGE_KEYS", line_of(key, "ann", ["predict"]))
    app = digits_app(store, ServeSpec(auth=AuthSpec(keys_env="PAGE_KEYS")))
    with listening(app.asgi) as address, opened(browser, address, begins="Use this key") as seen:
        page: Page = seen.page
        page.get_by_text("this endpoint asks for an API key").first.wait_for()
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.get_by_role("button", name="Predict")).to_be_hidden()
        assert "digits" not in page.content()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("Check the key.").wait_for()
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("The key is accepted.").wait_for()
        expect(page.get_by_role("heading", level=1)).to_have_text("digits version 1")
        draw(page, 0)
        expect(verdict(page)).to_have_text("0")
        shown = page.locator("#curl").inner_text() + page.locator("#python").inner_text()
        assert "$API_KEY" in shown and key not in shown
        stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert stored == '[{},{},""]'
        assert all("401" in error for error in seen.errors), "only the browser's own lines about refused requests"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("model", ["digits", "prices"])
def test_page_has_no_barrier_no_error_and_asks_nobody_else(
    model: str, scheme: Literal["light", "dark"], request: pytest.FixtureRequest, browser: Browser
):
    _, address = request.getfixturevalue(model)
    with opened(browser, address, color_scheme=scheme, viewport={"width": 320, "height": 640}) as seen:
        page: Page = seen.page
        if model == "digits":
            draw(page, 4)
        else:
            page.get_by_role("button", name="Predict").click()
        verdict(page).wait_for()
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true })")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.goto(address + "/docs")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert seen.errors == [] and {url.startswith(address + "/") for url in seen.requests} == {True}
