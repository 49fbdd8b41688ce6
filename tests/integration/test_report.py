"""The page that every run ends with: named by the command, opened in a browser, and no reason for a run to fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner, Result

from raypipe.cli.main import app
from raypipe.cli.reports import write_and_name
from raypipe.pipeline.api import Pipeline
from raypipe.pipeline.state import RunState
from raypipe.storage import layout, open_store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "01_digits" / "pipeline.yaml"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def raypipe(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def digits(ray_cluster: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The store and the answer of a run of the first example up to its evaluation."""
    store = tmp_path_factory.mktemp("digits")
    few = ("--set", "train.epochs=4", "--set", "train.num_workers=1", "--set", "track=[tensorboard]")
    return store, raypipe("run", DIGITS, *few, "--until", "evaluate", "--store", store, "--json", "--run", "rdigits")


def test_report_is_written_and_named_at_the_end_of_a_run(digits: tuple[Path, Result]):
    store, answer = digits
    assert answer.exit_code == 0, answer.stderr
    page = store / layout.report("rdigits")
    assert json.loads(answer.stdout)["report"] == str(page)
    assert f"report: {page}" in answer.stderr.splitlines()
    assert page.stat().st_size <= 2_000_000
    text = page.read_text()
    assert "Losses by epoch" in text and "Confusion matrix" in text and "goodput" in text
    assert "Calibration" in text and "answered worst" in text and "data:image/png;base64," in text
    assert [file for file in (store / layout.tensorboard("rdigits")).iterdir() if file.stat().st_size > 1000]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_opens_in_a_browser_without_errors_requests_or_barriers(
    digits: tuple[Path, Result], scheme: Literal["light", "dark"]
):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (make install-e2e)")
    address = (digits[0] / layout.report("rdigits")).as_uri()
    errors: list[str] = []
    requests: list[str] = []
    with sync_playwright() as started:
        # No sandbox: it needs rights that containers withhold, and the page is our own.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true })")
        found = Axe().run(page)
        shown = page.locator("svg").first.bounding_box()
        browser.close()
    assert found.violations_count == 0, found.generate_report()
    assert errors == [] and requests == [address]
    assert shown is not None and shown["width"] > 100


def test_report_of_a_run_that_fails_at_its_data_says_why(ray_cluster: SimpleNamespace, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("size,kind\n" + "1,a\n2,b\n" * 20)
    file = tmp_path / "p.yaml"
    file.write_text(
        f"name: rows\ndata:\n  source: {{format: csv, path: {tmp_path / 'rows.csv'}}}\n  target: kind\n"
        "  expectations: [{kind: range, columns: [size], min: 10, on_fail: fail}]\n"
        "model: {kind: linear}\ntrain: {epochs: 1}\n"
    )
    answer = raypipe("run", file, "--store", tmp_path / "store", "--run", "rfails")
    assert answer.exit_code == 3, answer.stderr
    page = tmp_path / "store" / layout.report("rfails")
    assert f"report: {page}" in answer.stderr.splitlines()
    text = page.read_text()
    assert "Failed in data:" in text and "size" in text


def test_report_that_cannot_be_written_is_told_and_fails_no_run(digits: tuple[Path, Result]):
    store, _ = digits
    (store / layout.report("rother")).mkdir(parents=True)  # a folder where the page would be
    few = ("--set", "train.epochs=4", "--set", "train.num_workers=1")
    answer = raypipe("run", DIGITS, *few, "--until", "evaluate", "--store", store, "--run", "rother", "--json")
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["report"] is None
    assert [line for line in answer.stderr.splitlines() if line.startswith("no report: ")]
    assert open_store(str(store)).exists(layout.record("rother", "evaluate"))


@pytest.mark.s3
def test_report_in_s3_is_named_with_the_command_that_fetches_it(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    uri = f"s3://{bucket}/pages"
    store = open_store(uri)
    asked = {
        "spec": {"name": "digits"},
        "file": "p.yaml",
        "overrides": [],
        "raypipe": "1",
        "started_at": "2026-03-01T10:00:00Z",
    }
    RunState(store, "r1", "digits").describe(asked)
    where = f"{uri}/{layout.report('r1')}"
    assert write_and_name(Pipeline.load(DIGITS, store=store), "r1") == where
    fetch = capsys.readouterr().err.split("; ")[1].removesuffix(" fetches it\n").split()
    assert fetch == ["raypipe", "report", "r1", "--store", uri, "--out", "report.html"]
    out = tmp_path / fetch[-1]
    answer = raypipe(*fetch[1:-1], out)
    assert answer.exit_code == 0, answer.stderr
    assert out.read_bytes() == store.read(layout.report("r1"))
