"""`raypipe key`: what it prints, and what it leaves in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypipe.cli import serving
from raypipe.cli.main import app
from raypipe.cli.summary import curl_line
from raypipe.records import Endpoint
from raypipe.serve.keys import Keys
from raypipe.spec.access import AuthSpec
from raypipe.spec.serve import ServeSpec

runner = CliRunner()


def test_key_is_shown_once_and_its_line_lets_it_in(monkeypatch: pytest.MonkeyPatch):
    answer = runner.invoke(app, ["key", "ann"])
    words = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in answer.stdout.splitlines()}
    assert words["key"].startswith("rp_") and words["key"] not in words["line"]
    monkeypatch.setenv("KEYS", words["line"])
    keys = Keys.load(AuthSpec(keys_env="KEYS"))
    assert keys.check({b"x-api-key": words["key"].encode()}, "predict") == "ann"


def test_lines_are_added_to_a_file_of_this_user_alone(tmp_path: Path):
    file = tmp_path / "keys.jsonl"
    made = [
        json.loads(runner.invoke(app, ["key", *words, "--file", str(file), "--json"]).stdout)
        for words in (["ann"], ["ada", "--scope", "admin", "--scope", "predict", "--rate", "5", "--burst", "9"])
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    keys = Keys.load(AuthSpec(keys_file=str(file)))
    for each, scope in zip(made, ("predict", "admin"), strict=True):
        assert keys.check({b"x-api-key": each["key"].encode()}, scope) == each["line"]["name"]
        assert each["key"] not in file.read_text()
    assert made[1]["line"] | {"rate": 5, "burst": 9, "scopes": ["admin", "predict"]} == made[1]["line"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Ann Smith"], "NAME: found 'Ann Smith'; must be"),
        (["ann", "--scope", "root"], "--scope: "),
        (["ann", "--rate", "0"], "--rate: "),
        (["ann", "--burst", "0"], "--burst: "),
        (["ann", "--file", "/nowhere/at/all"], "--file: /nowhere/at/all cannot be written: No such file"),
    ],
)
def test_what_does_not_fit_names_the_option_and_makes_no_key(words: list[str], told: str):
    answer = runner.invoke(app, ["key", *words])
    assert answer.exit_code == 2 and told in answer.stderr and "rp_" not in answer.output


def test_file_that_is_a_list_is_left_as_it_is(tmp_path: Path):
    file = tmp_path / "keys.json"
    file.write_text("[]")
    answer = runner.invoke(app, ["key", "ann", "--file", str(file)])
    assert answer.exit_code == 2 and "is a JSON list" in answer.stderr and file.read_text() == "[]"


def test_curl_line_asks_with_a_key_and_trusts_the_certificate():
    endpoint = Endpoint(
        name="m", url="https://h:1", model="m", version=1, min_replicas=1, max_replicas=1, ingress="haproxy",
        needs_key=True, cert_file="/a b/c.pem",
    )  # fmt: skip
    line = curl_line(endpoint, {"instances": [1]})
    assert line.startswith("curl -s --cacert '/a b/c.pem' https://h:1/predict")
    assert '-H "Authorization: Bearer $RAYPIPE_KEY"' in line
    assert curl_line(endpoint, None) == "curl -s --cacert '/a b/c.pem' https://h:1/healthz"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--keys-file", "a", "--keys-env", "B"], "--keys-file and --keys-env: keys are in one place"),
        (["--cert-file", "a"], "--cert-file and --key-file: HTTPS needs both"),
        (["--keys-env", "A B"], "--keys-env: found 'A B'"),
        (["--keys-env", "KEYS", "--host", "0.0.0.0"], "auth on host 0.0.0.0 without tls would send keys in the clear"),
    ],
)
def test_serve_with_access_that_does_not_fit_names_the_option(words: list[str], told: str):
    answer = runner.invoke(app, ["serve", "model", *words])
    assert answer.exit_code == 2 and told in answer.stderr


def test_paths_of_keys_and_certificate_are_those_of_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    fields = serving._access(Path("keys.jsonl"), None, Path("cert.pem"), Path("/k/key.pem"))
    spec = ServeSpec.model_validate(fields)
    assert spec.auth is not None and spec.auth.keys_file == str(tmp_path / "keys.jsonl")
    assert spec.tls is not None and spec.tls.cert_file == str(tmp_path / "cert.pem")
    assert spec.tls.key_file == "/k/key.pem"
