"""No message repeats a password out of an address, whoever wrote the message; such addresses are refused at once."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import httpx
import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from raypipe.cli.main import app
from raypipe.cli.output import reported
from raypipe.errors import RequestError, SpecError, StoreAccessError, StoreError, masked
from raypipe.runtime.connect import first_line
from raypipe.runtime.environment import passed_on
from raypipe.runtime.reach import lasting
from raypipe.spec.addresses import check_address
from raypipe.spec.batch import BatchSpec
from raypipe.spec.load import parse_pipeline
from raypipe.storage import open_store

runner = CliRunner()
SECRET = "s3cretKEY"

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
"""

STORES = (
    f"s3://AKIA:{SECRET}@bucket/p",
    f"s3://AKIA:ab/{SECRET}/cd@bucket/p",
    f"s3://AKIA:a b{SECRET}@bucket/p",
    f"s3://{SECRET}@bucket",
    f"s3://AKIA:{SECRET}",
    f"S3://AKIA:{SECRET}@bucket",
    f"s3:/AKIA:{SECRET}@bucket/p",
    f"https://ann:{SECRET}@host/p",
    f"https://host/p?token={SECRET}",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("RAYPIPE_STORE", "RAY_ADDRESS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "p.yaml").write_text(FILE)
    return tmp_path


def refused(*words: str) -> str:
    answer = runner.invoke(app, list(words))
    assert answer.exit_code == 2, answer.output
    assert SECRET not in answer.output
    return answer.stderr


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "words", [["models"], ["plan", "p.yaml"], ["run", "p.yaml"], ["serve", "m"], ["promote", "m@1"]]
)
def test_store_with_a_secret_is_refused_without_showing_it(folder: Path, words: list[str], store: str):
    refused(*words, "--store", store)
    assert [path.name for path in folder.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize("store", STORES)
def test_store_of_the_environment_or_the_file_with_a_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, folder: Path, store: str
):
    refused("validate", "p.yaml", "--set", f"store={json.dumps(store)}")
    refused("submit", "p.yaml", "--address", "http://127.0.0.1:1", "--store", store)
    (folder / "q.yaml").write_text(FILE + f"store: {json.dumps(store)}\n")
    assert "q.yaml:4: store:" in refused("validate", "q.yaml")
    monkeypatch.setenv("RAYPIPE_STORE", store)
    refused("models")
    with pytest.raises(SpecError) as caught:
        lasting(None)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", STORES)
@pytest.mark.parametrize("option", ["--input", "--output"])
def test_predict_place_with_a_secret_is_refused(address: str, option: str):
    words = {"--input": "in.csv", "--output": "out"} | {option: address}
    said = refused("predict", "m", *[word for pair in words.items() for word in pair])
    assert said.startswith(f"error: {option}: ")


@pytest.mark.parametrize("address", STORES)
def test_data_place_and_batch_output_with_a_secret_are_refused(address: str):
    source = {"format": "csv", "path": address}
    for raw in (
        FILE.replace("{format: sklearn, dataset: iris}", json.dumps(source)),
        FILE.replace("target: target", f"target: target, root: {json.dumps(address)}"),
    ):
        with pytest.raises(SpecError) as caught:
            parse_pipeline(raw)
        assert SECRET not in str(caught.value)
    with pytest.raises(ValidationError) as refusal:
        BatchSpec.model_validate({"source": {"format": "csv", "path": "a.csv"}, "output": address})
    assert SECRET not in refusal.value.errors(include_input=False)[0]["msg"]


@pytest.mark.parametrize("words", [["status"], ["stop"], ["submit", "p.yaml", "--store", "/kept"]])
@pytest.mark.parametrize("address", [f"http://ann:{SECRET}@head:8265", f"ann:{SECRET}@head:6379"])
def test_cluster_address_with_a_secret_is_refused(words: list[str], address: str):
    assert "is written with a user name or password" in refused(*words, "--address", address)


def test_cluster_address_of_the_environment_with_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", f"ray://ann:{SECRET}@head:10001")
    assert "RAY_ADDRESS" in refused("status")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("url", [f"http://ann:{SECRET}@127.0.0.1:1", f"http://ann:{SECRET}@", f"ann:{SECRET}@[::"])
def test_s3_endpoint_with_a_secret_is_refused_and_not_passed_on(monkeypatch: pytest.MonkeyPatch, name: str, url: str):
    monkeypatch.setenv(name, url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    refused("models", "--store", "s3://bucket")
    with pytest.raises(SpecError, match=f"{name} is written with") as caught:
        passed_on()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("words", [["models", f"s3://K:{SECRET}@b"], [f"s3://K:{SECRET}@b"]])
def test_words_click_refuses_are_told_without_the_secret(words: list[str]):
    refused(*words)


@pytest.mark.parametrize("store", ["s3:/bucket/p", "s3:bucket", "S3:/b", "file:/tmp/x", "https:/host/x"])
def test_store_with_one_slash_is_refused_and_makes_no_folder(folder: Path, store: str):
    with pytest.raises(StoreAccessError, match="without two slashes after it"):
        open_store(store).write("a", b"1")
    assert [path.name for path in folder.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    "address", ["data/a.csv", "/abs/a:b@c.csv", "./s3:/x", "s3://b/a@1/x:y.csv", "https://h:80/a@b"]
)
def test_address_without_a_secret_passes_and_is_shown_as_it_is(address: str):
    check_address(address)
    assert masked(f"{address}: gone") == f"{address}: gone"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:pw@proxy:3128 refused", "http://proxy:3128 refused"),
        ("'https://u:a@b@h/x'", "'https://h/x'"),
        ("s3://K:a/b+c/d@bucket/p does not exist", "s3://bucket/p does not exist"),
        ("GET https://h/x?X-Amz-Signature=1&y=2: 403", "GET https://h/x 403"),
        ("no answer at http://head:8265/api: x@y", "no answer at http://head:8265/api: x@y"),
        ("s3://b/part-?.csv", "s3://b/part-?.csv"),
    ],
)
def test_masked_text_keeps_all_but_the_secret(text: str, shown: str):
    assert masked(text) == shown


def test_errors_mask_whatever_they_are_made_from_and_stay_rebuildable():
    error = RequestError(f"cannot reach http://u:{SECRET}@h", f"see https://h/x?k={SECRET}", status=409)
    again = type(error)(*error.args)
    assert (again.message, again.hint, again.status) == ("cannot reach http://h", "see https://h/x", 409)
    assert first_line(httpx.ConnectError(f"http://u:{SECRET}@proxy failed")) == "http://proxy failed"
    long = f"http://u:{SECRET * 60}@proxy failed"  # longer than a line: masked before it is cut
    assert SECRET not in first_line(OSError(long))


def failing(error: Exception) -> typer.Typer:
    made = typer.Typer()

    @made.command()
    @reported
    def fail() -> None:
        try:
            raise httpx.ProxyError(f"http://ann:{SECRET}@proxy:3128 refused")
        except httpx.ProxyError as cause:
            raise error from cause

    return made


@pytest.mark.parametrize("error", [StoreError("no answer"), OSError(f"http://ann:{SECRET}@proxy:3128 refused")])
def test_traceback_of_a_chain_is_masked_on_the_screen_and_in_its_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    monkeypatch.setenv("RAYPIPE_DEBUG", "1")
    answer = runner.invoke(failing(error), [])
    assert SECRET not in answer.output and "ProxyError" in answer.stderr
    if isinstance(error, OSError):
        log = Path(answer.stderr.partition("the traceback is in ")[2].partition(";")[0])
        assert "http://proxy:3128 refused" in log.read_text() and SECRET not in log.read_text()
    assert SECRET in "".join(traceback.format_exception(error))  # what was masked


@pytest.mark.parametrize(
    "store", [f"s3://AKIA%3A{SECRET}%40bucket/p", f"s3://AKIA%3a{SECRET}", f"https://u:{SECRET}%40h/"]
)
def test_address_in_percent_encoding_is_refused_too(store: str):
    with pytest.raises(ValueError, match="user name or password") as caught:
        check_address(store)
    assert SECRET not in str(caught.value)
    assert "%40" not in store or SECRET not in masked(f"no answer from {store}, tried 3 times")


@pytest.mark.parametrize("text", ["a." * 100_000, "a:/" * 10_000, "x:/y:z" * 3_000, "http://" * 3_000])
@pytest.mark.parametrize("more", ["", "@ ", "%40 ? "])
def test_masking_long_texts_does_not_cost_the_square_of_their_length(text: str, more: str):
    assert masked(more + text) == more + text  # pytest's time-out is the bar: the first took minutes
