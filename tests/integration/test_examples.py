"""The examples on real Ray: 01 as a user runs it, the others through `Pipeline` on one shared cluster.

Every endpoint is asked over HTTP and must give what the Predictor gives here for the same rows; 02 stops before its
endpoint, which is that of 01 with larger images. One file, since all but 01 share one Serve, one store and the helpers
that compare an endpoint with the Predictor.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from raypipe.model.predictor import Predictor
from raypipe.pipeline.api import Pipeline, RunResult
from raypipe.records import (
    DataProfile,
    DatasetVersion,
    Endpoint,
    EvaluationReport,
    ModelVersion,
    TrainResult,
    TuneResult,
)
from raypipe.report.page import write_report
from raypipe.storage import Store, layout, open_store
from raypipe.storage.documents import read_document
from tests.integration.sockets import MARK, Watch, processes_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MNIST = ROOT.parent / "shared" / "data" / "mnist"
SHAKESPEARE = ROOT.parent / "shared" / "data" / "shakespeare"
NUM_ASKED_ROWS = 50
LEAVE_TIMEOUT_S = 20.0

OUR_LINE = re.compile(r"\d\d:\d\d:\d\d (run|ray|data|train|evaluate|register|serve) ")
"""What a command tells on stderr while it works; Ray's own lines in between say nothing to its user."""

pytestmark = pytest.mark.ray

Run = Callable[..., RunResult]


@pytest.fixture(scope="module")
def store(private_dir: Path) -> Store:
    """One for the module: the examples share what they may share."""
    return open_store(str(private_dir / "examples-store"))


@pytest.fixture(scope="module")
def run(ray_cluster: SimpleNamespace, store: Store) -> Iterator[Run]:
    """Runs an example's file on the session's Ray, all behind one Serve, each under a route of its own."""
    from raypipe.serve.stage import stop
    from tests.conftest import pick_ports

    (port,) = pick_ports(1)

    def run_file(file: str, *overrides: str, until: str | None = None) -> RunResult:
        path = EXAMPLES / file
        name = path.stem if path.stem != "pipeline" else path.parent.name
        # A replica keeps its logical CPUs while later tests train, so it takes few of the four.
        serving = (f"serve.port={port}", f"serve.route_prefix=/{name}", "serve.resources.num_cpus=0.1")
        return Pipeline.load(path, [*serving, *overrides], store).run(until=until, stream=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_cluster.address)  # a cluster that is there: endpoints stay after their run
        yield run_file
        stop()


def report_of(result: RunResult) -> EvaluationReport:
    report = result.records["evaluate"]
    assert isinstance(report, EvaluationReport)
    assert report.passed
    return report


def predictor_of(result: RunResult, store: Store, code_dir: Path | None = None) -> Predictor:
    version = result.records["register"]
    assert isinstance(version, ModelVersion) and version.alias == "champion"
    return Predictor.load(store, version.artifact, code_dir=code_dir)


def dataset_of(result: RunResult) -> DatasetVersion:
    tuned, dataset = result.records.get("tune"), result.records["data"]
    found = tuned.dataset if isinstance(tuned, TuneResult) else dataset
    assert isinstance(found, DatasetVersion)
    return found


def assert_readme_tells(example: str, dataset: DatasetVersion) -> None:
    """The run that an example's README shows made this very dataset version."""
    splits = ", ".join(f"{name} {split.num_rows}" for name, split in dataset.splits.items())
    assert f"{dataset.version[:12]}: {splits} rows" in (EXAMPLES / example / "README.md").read_text()


def asked_rows(result: RunResult, store: Store) -> dict[str, np.ndarray]:
    from raypipe.data.shards import load_rows

    return load_rows(store, dataset_of(result), "test", stop=NUM_ASKED_ROWS).columns


def as_json(columns: dict[str, np.ndarray], predictor: Predictor) -> list[dict[str, Any]]:
    """Columns -> rows of a request; a missing number is null."""
    whole = {c.name for c in predictor.signature.inputs if not c.dtype.startswith("float") and not c.nullable}
    lists = {name: values.tolist() for name, values in columns.items()}
    assert whole <= set(lists)
    return [
        {name: None if value != value else value for name, value in zip(lists, row, strict=True)}
        for row in zip(*lists.values(), strict=True)
    ]


def assert_same_answers(found: list[Any], predictor: Predictor, columns: dict[str, np.ndarray]) -> None:
    """HTTP answers against the Predictor's, to 1e-6."""
    expected = predictor.predict(columns)
    if predictor.signature.task == "regression":
        rows = [list(row.values()) if isinstance(row, dict) else row for row in found]
        np.testing.assert_allclose(rows, expected.values, atol=1e-6)
        return
    (answer,) = predictor.task.columns_of("answer")
    assert [row[answer.name] for row in found] == predictor.task.answers(expected.values)[answer.name]
    np.testing.assert_allclose([row["probabilities"] for row in found], expected.values, atol=1e-6)


def assert_endpoint_agrees(result: RunResult, store: Store, code_dir: Path | None = None) -> Predictor:
    assert result.endpoint is not None
    predictor, columns = predictor_of(result, store, code_dir), asked_rows(result, store)
    answer = httpx.post(
        f"{result.endpoint.url}/predict", json={"instances": as_json(columns, predictor)}, timeout=30.0
    ).raise_for_status()
    assert_same_answers(answer.json()["predictions"], predictor, columns)
    return predictor


def ask(endpoint: Endpoint | None, **row: Any) -> httpx.Response:
    assert endpoint is not None
    return httpx.post(f"{endpoint.url}/predict", json={"instances": [row]}, timeout=30.0)


# --- 01 as a user runs it --------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_digits_run_sh_ends_with_an_accurate_endpoint_that_answered_and_leaves_no_process(
    private_dir: Path, free_port: int
):
    home = private_dir / "d"
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    env = {**clean, "HOME": str(home), "RAY_TMPDIR": str(private_dir), MARK: str(home)}
    env["PATH"] = f"{programs(private_dir)}:{clean['PATH']}"
    with Watch(str(home), private_dir) as watch:
        done = subprocess.run(
            [str(EXAMPLES / "01_digits" / "run.sh"), "--json", "--store", "kept", "--set", f"serve.port={free_port}"],
            cwd=home,  # run.sh works from any folder; the store is where the user is
            env=env,
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (report,) = [line for line in done.stderr.splitlines() if not OUR_LINE.match(line)]
    assert report.startswith("report: ") and report.endswith("report.html")
    assert processes_of(str(home), LEAVE_TIMEOUT_S) == []
    assert watch.open_to_others == set()
    for program in ("gcs_server", "raylet", "TrainWorker", "haproxy", "ServeReplica"):
        assert any(program in command for command in watch.on_loopback), program  # it was looked at
    assert not any("dashboard/dashboard.py" in command for command in watch.on_loopback), "nobody asks it anything"
    assert set(watch.niceness.values()) == {os.getpriority(os.PRIO_PROCESS, 0)}  # as fast as the user's own programs
    assert set(watch.modes.values()) == {0o700}
    assert not [name for name in watch.modes if (private_dir / name).exists()]
    told = json.loads(done.stdout)
    assert told["metrics"]["accuracy"] >= 0.96
    endpoint = Endpoint.model_validate(told["stages"]["serve"]["record"])
    store = open_store(str(home / "kept"))
    version = ModelVersion.model_validate(told["stages"]["register"]["record"])
    assert_readme_tells("01_digits", DatasetVersion.model_validate(told["stages"]["data"]["record"]))
    images = [row["image"] for row in endpoint.probe["request"]["instances"]]
    predictor = Predictor.load(store, version.artifact)
    assert_same_answers(endpoint.probe["answer"]["predictions"], predictor, {"image": np.array(images, dtype=np.uint8)})


def programs(folder: Path) -> Path:
    """A folder for PATH with `raypipe`, as `pip install` would put it there, and `python3`."""
    bin_dir = folder / "bin"
    bin_dir.mkdir(exist_ok=True)
    program = bin_dir / "raypipe"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m raypipe "$@"\n')
    program.chmod(0o755)
    return bin_dir


# --- 02 against a plain loop -----------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST files in {MNIST}; the public download is not used in tests")
def test_mnist_reaches_its_accuracy_and_a_plain_torch_loop_comes_to_the_same(run: Run, store: Store):
    result = run("02_mnist/pipeline.yaml", f"data.root={MNIST}", until="register")
    accuracy = report_of(result).metrics["accuracy"]
    assert report_of(result).num_rows == 10_000
    assert_readme_tells("02_mnist", dataset_of(result))
    assert accuracy >= 0.975
    assert abs(accuracy - plain_mnist(store, dataset_of(result))) <= 0.003


def plain_mnist(store: Store, dataset: DatasetVersion) -> float:
    """Test accuracy of the same network on the same rows, written as anyone writes it in PyTorch."""
    import torch
    from torch import nn

    from raypipe.data.shards import load_rows

    def tensors(split: str) -> tuple[torch.Tensor, torch.Tensor]:
        rows = load_rows(store, dataset, split)
        return torch.tensor(rows.columns["image"]).float() / 255, torch.tensor(rows.target).long()

    torch.manual_seed(0)
    images, labels = tensors("train")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.006)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5 * -(-len(labels) // 128))
    for _ in range(5):
        for rows in torch.randperm(len(labels)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    images, labels = tensors("test")
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).double().mean())


# --- 03 --------------------------------------------------------------------------------------------------------------


def make_data(example: str, target: str) -> None:
    """Make an example's data at `target`, by its own script."""
    subprocess.run(
        [sys.executable, str(EXAMPLES / example / "make_data.py"), target],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


@pytest.fixture(scope="module")
def flats(private_dir: Path) -> Iterator[str]:
    """The override that names freshly made data; the key of its masks is in the environment."""
    make_data("03_tabular", str(private_dir / "flats" / "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLATS_KEY", secrets.token_hex(32))
        yield f"data.root={private_dir / 'flats'}"


FLAT = {
    "area_m2": 71.5,
    "rooms": 3,
    "built": None,
    "energy_class": "C",
    "heating": None,
    "balcony": True,
    "district": "harbour",
}
OFFER = {**FLAT, "agency": "New & Co", "listed_on": "2025-04-02", "price_m": 0.31}


@pytest.mark.timeout(240)
def test_flats_classification_searches_passes_its_gates_and_treats_new_categories_as_the_file_says(
    run: Run, store: Store, flats: str
):
    # The session's Ray lends four CPUs: at two trials at a time two processes import torch, for three trials each.
    result = run("03_tabular/classification.yaml", flats, "tune.max_concurrent_trials=2")
    report = report_of(result)
    assert 0.79 <= report.metrics["accuracy"] <= 0.87
    assert set(report.per_class or {}) == {"no", "yes"}
    tuned = result.records["tune"]
    assert isinstance(tuned, TuneResult) and len(tuned.trials) == 6
    assert {trial.status for trial in tuned.trials} <= {"completed", "stopped"}
    assert_endpoint_agrees(result, store)
    new_district = ask(result.endpoint, **{**OFFER, "district": "lakeside"})
    assert new_district.status_code == 200
    new_class = ask(result.endpoint, **{**OFFER, "energy_class": "H"})
    assert new_class.status_code == 400
    assert "energy_class" in new_class.text and "'H'" in new_class.text
    personal = ask(result.endpoint, **OFFER, seller_email="ada.ost1@example.org")
    assert personal.status_code == 400
    assert "seller_email" in personal.text and "ada.ost1" not in personal.text
    assert_mistakes_are_in_quarantine_and_addresses_nowhere(dataset_of(result), store)


def assert_mistakes_are_in_quarantine_and_addresses_nowhere(dataset: DatasetVersion, store: Store) -> None:
    assert dataset.num_bad_rows == 25 and dataset.bad_rows_key and dataset.profile_key
    bad = [json.loads(line) for line in store.read(dataset.bad_rows_key).splitlines()]
    reasons = Counter(row["reason"].split("'")[1] for row in bad)
    assert reasons == dict.fromkeys(("area_m2", "energy_class", "listed_on", "price_m", "offer_id"), 5)
    profile = read_document(store, dataset.profile_key, DataProfile)
    assert profile.num_rows == 6000
    broken = {result.columns[0]: result.num_broken for result in profile.expectations if not result.passed}
    assert set(broken) == {"offer_id", "area_m2", "energy_class", "listed_on", "built"}
    prefix = layout.dataset(dataset.name, dataset.version)
    kept = b"".join(store.read(found.key) for found in store.list(prefix))
    assert b"seller_phone" in kept
    assert b"example.org" not in kept and b"+49 30 555" not in kept and b"seller_name" not in kept


@pytest.mark.timeout(240)
def test_flats_regression_explains_nearly_all_that_can_be_explained(run: Run, store: Store, flats: str):
    result = run("03_tabular/regression.yaml", flats)
    metrics = report_of(result).metrics
    assert 0.85 <= metrics["r2"] <= 0.93
    assert metrics["rmse"] <= 0.06
    assert_endpoint_agrees(result, store)
    cheap, dear = (ask(result.endpoint, **{**FLAT, "district": name}) for name in ("airport", "old_town"))
    assert cheap.json()["predictions"][0] < dear.json()["predictions"][0]


@pytest.mark.timeout(240)
def test_flats_of_the_year_after_are_said_to_have_drifted_in_their_prices_alone(run: Run, store: Store, flats: str):
    file = EXAMPLES / "03_tabular" / "classification.yaml"
    Pipeline.load(file, [flats], store).run(until="data", stream=None)
    later = Pipeline.load(file, [flats, "data.source.path=data/flats_2025.csv"], store).run(until="data", stream=None)
    dataset = dataset_of(later)
    assert dataset.num_bad_rows == 0 and dataset.profile_key
    profile = read_document(store, dataset.profile_key, DataProfile)
    (drift,) = [result for result in profile.expectations if result.kind == "drift"]
    assert not drift.passed
    assert "'price_m'" in drift.detail and "'area_m2'" not in drift.detail and "'district'" not in drift.detail


# --- 09 --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_several_answers_a_row_and_rows_that_count_differently_reach_their_gates(
    run: Run, store: Store, tmp_path: Path
):
    script = EXAMPLES / "09_several_answers" / "make_data.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "data")], check=True, capture_output=True, timeout=60)
    root = f"data.root={tmp_path}"
    labels = run("09_several_answers/labels.yaml", root)
    assert_readme_tells("09_several_answers", dataset_of(labels))
    assert set(report_of(labels).per_class or {}) == {"bright", "garden", "large", "quiet"}
    assert_endpoint_agrees(labels, store)
    numbers = run("09_several_answers/numbers.yaml", root, until="evaluate")
    assert_readme_tells("09_several_answers", dataset_of(numbers))
    assert report_of(numbers).weighted_by == "stands_for" and report_of(numbers).metrics["r2.heating_eur"] > 0.9
    page = write_report(store, numbers.run_id)[1].decode()
    assert "Metrics, rows weighted by stands_for" in page and "mae.rent_eur" in page


# --- 04 --------------------------------------------------------------------------------------------------------------

YOUR_MODEL = EXAMPLES / "04_your_model"


@pytest.mark.timeout(240)
def test_your_torch_network_trains_registers_and_serves(run: Run, store: Store):
    result = run("04_your_model/pipeline.yaml")
    assert_readme_tells("04_your_model", dataset_of(result))
    assert report_of(result).metrics["accuracy"] >= 0.97
    assert_endpoint_agrees(result, store, YOUR_MODEL)


@pytest.mark.timeout(240)
def test_keras_network_trains_on_two_workers_registers_and_serves_unchanged(run: Run, store: Store):
    result = run("04_your_model/keras.yaml")
    assert report_of(result).metrics["accuracy"] >= 0.95
    trained = result.records["train"]
    assert isinstance(trained, TrainResult) and trained.num_workers == 2
    losses = [epoch.metrics["train_loss"] for epoch in trained.history]
    assert losses[-1] < losses[0] / 5
    assert_endpoint_agrees(result, store, YOUR_MODEL)


# --- 05 and 06 -------------------------------------------------------------------------------------------------------


@pytest.mark.s3
@pytest.mark.timeout(240)
def test_pictures_are_drawn_into_s3_read_from_there_and_told_apart(run: Run, store: Store, bucket: str):
    make_data("05_images", f"s3://{bucket}/example")
    result = run("05_images/pipeline.yaml", f"data.root=s3://{bucket}/example")
    assert report_of(result).metrics["f1_macro"] >= 0.95
    dataset = dataset_of(result)
    assert_readme_tells("05_images", dataset)
    assert {name: split.num_rows for name, split in dataset.splits.items()} == {"train": 600, "val": 150, "test": 250}
    assert dataset.num_bad_rows == 2 and dataset.bad_rows_key
    reasons = [json.loads(line)["reason"] for line in store.read(dataset.bad_rows_key).splitlines()]
    assert [reason.partition(":")[0] for reason in reasons] == ["circle/cut_short.png", "square/no_picture.png"]
    assert_endpoint_agrees(result, store)


@pytest.mark.timeout(240)
def test_sounds_are_told_apart_and_a_wav_file_can_be_asked_about(run: Run, store: Store, private_dir: Path):
    folder = private_dir / "sounds"
    make_data("06_audio", str(folder / "sounds"))
    result = run("06_audio/pipeline.yaml", f"data.root={folder}")
    assert report_of(result).metrics["accuracy"] >= 0.93
    assert_readme_tells("06_audio", dataset_of(result))
    assert_endpoint_agrees(result, store)
    assert result.endpoint is not None
    sound = folder / "sounds" / "rattle" / "007.wav"
    request = subprocess.run(
        [sys.executable, str(EXAMPLES / "06_audio" / "request.py"), str(sound)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    answer = httpx.post(f"{result.endpoint.url}/predict", content=request.stdout, timeout=30.0).raise_for_status()
    assert answer.json()["predictions"][0]["label"] == "rattle"


# --- 07 --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.skipif(not SHAKESPEARE.is_dir(), reason=f"no text in {SHAKESPEARE}; nothing is downloaded in tests")
def test_text_is_learned_by_two_workers_and_written_on_token_by_token(run: Run, store: Store):
    small = (
        "model.dim=32",
        "model.num_layers=1",
        "train.epochs=1",
        "train.global_batch_size=64",
        "train.num_workers=2",
    )
    gate = "evaluate.gates=[{metric: perplexity, max: 14}, {metric: bits_per_character, max: 4}]"
    result = run("07_language_model/pipeline.yaml", f"data.root={SHAKESPEARE}", *small, gate)
    assert_readme_tells("07_language_model", dataset_of(result))
    metrics = report_of(result).metrics
    assert 4 < metrics["perplexity"] <= 14
    trained = result.records["train"]
    assert isinstance(trained, TrainResult) and trained.num_workers == 2
    assert trained.metrics["val_perplexity"] == pytest.approx(np.exp(trained.metrics["val_loss"]), rel=1e-5)
    predictor = predictor_of(result, store)
    assert result.endpoint is not None and predictor.writer is not None
    texts = asked_rows(result, store)
    answer = httpx.post(f"{result.endpoint.url}/predict", json={"instances": as_json(texts, predictor)}, timeout=30.0)
    likely = [row["log_likelihood"] for row in answer.raise_for_status().json()["predictions"]]
    np.testing.assert_allclose(likely, predictor.predict(texts).values[:, 0], rtol=1e-5)

    asked: dict[str, Any] = {"prompt": "ROMEO:\n", "max_new_tokens": 80, "temperature": 0.8, "top_k": 20, "seed": 7}
    how = {"seed": 7, "temperature": 0.8, "top_k": 20}
    here = "".join(predictor.writer.write(predictor.writer.read(asked["prompt"]), 80, **how))
    url = f"{result.endpoint.url}/generate"
    assert httpx.post(url, json=asked, timeout=30.0).raise_for_status().json()["text"] == here
    with httpx.stream("POST", url, json={**asked, "stream": True}, timeout=30.0) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert "".join(event["token"] for event in told[:-1]) == here and told[-1]["num_tokens"] == 80
    with httpx.stream("POST", url, json={**asked, "max_new_tokens": 16_000, "stream": True}, timeout=30.0) as answer:
        assert "token" in next(answer.iter_lines())  # it comes before the text is whole; then this client leaves
    unknown = httpx.post(url, json={"prompt": "Ä"}, timeout=30.0)
    assert unknown.status_code == 400 and "'Ä'" in unknown.json()["error"]["message"]


# --- 08 --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_dates_are_written_as_evaluation_batch_and_endpoint_agree(run: Run, store: Store, private_dir: Path):
    make_data("08_translation", str(private_dir / "dates" / "phrases.csv"))
    # Fewer steps than the file's own: enough for most of a date's characters.
    short = (
        "train.max_steps=160",
        "train.global_batch_size=128",
        "evaluate.gates=[{metric: token_accuracy, min: 0.6}]",
    )
    result = run("08_translation/pipeline.yaml", f"data.root={private_dir / 'dates'}", *short)
    assert_readme_tells("08_translation", dataset_of(result))
    metrics = report_of(result).metrics
    assert metrics["token_accuracy"] >= 0.6 and 1 < metrics["perplexity"] < 4
    predictor = predictor_of(result, store)
    assert result.endpoint is not None and predictor.writer is not None
    texts = asked_rows(result, store)
    here = predictor.task.json_rows(predictor.predict(texts).values)
    answer = httpx.post(f"{result.endpoint.url}/predict", json={"instances": as_json(texts, predictor)}, timeout=30.0)
    assert [row["text"] for row in answer.raise_for_status().json()["predictions"]] == [row["text"] for row in here]
    url, prompt = f"{result.endpoint.url}/generate", str(texts["phrase"][0])
    with httpx.stream("POST", url, json={"prompt": prompt, "stream": True}, timeout=30.0) as streamed:
        told = [json.loads(line[6:]) for line in streamed.iter_lines() if line.startswith("data: ")]
    assert "".join(event["token"] for event in told[:-1]) == here[0]["text"]
    unknown = httpx.post(url, json={"prompt": "am 3. März"}, timeout=30.0)
    assert unknown.status_code == 400 and "'ä'" in unknown.json()["error"]["message"]
