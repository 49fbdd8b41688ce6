"""The environment of a container -> what to serve, where to listen, which paths the platform asks at.

    Vertex AI   AIP_HTTP_PORT AIP_HEALTH_ROUTE AIP_PREDICT_ROUTE AIP_STORAGE_URI
    SageMaker   SAGEMAKER_BIND_TO_PORT SAGEMAKER_MODEL_SERVER_WORKERS, the model in /opt/ml/model
    Azure ML    AZUREML_MODEL_DIR; ports and paths are told to Azure, not by it
    all         RAYPIPE_STORE RAYPIPE_MODEL RAYPIPE_PORT RAYPIPE_HOST RAYPIPE_SCORE_ROUTE RAYPIPE_WORKERS RAYPIPE_SERVE
                RAYPIPE_CODE; they win over the platform's

Sources: https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html,
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-custom-container
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from raypipe.errors import SpecError
from raypipe.spec.serve import ServeSpec

MODEL_FOLDER = "/opt/ml/model"
"""Where SageMaker unpacks model.tar.gz; also where an image's own model belongs."""

USUAL_PORT = "8080"
"""Of Vertex AI and SageMaker alike."""

SCORE_ROUTE = "/score"
"""What Azure ML's own inference server answers at."""

HEALTH_PATH = "/healthz"

INVOCATIONS_PATH = "/invocations"
"""Takes rows, dataframes, columns and CSV: on Azure ML the container sets the rules, so clients send any of them."""

INSTANCES_PATH = "/v1/models/{model}:predict"
"""TensorFlow Serving's, whose shape Vertex AI took."""

EVERY_ADDRESS = "0.0.0.0"
"""A container has a network of its own: what listens on its loopback address, the platform does not reach."""

MAX_WORKERS = 64

PATH = re.compile(r"/[A-Za-z0-9._~:@!$&'()*+,;=/-]{0,1000}")
"""Without escapes, query and fragment."""

PLATFORMS_OWN = {
    "host": "RAYPIPE_HOST",
    "port": "RAYPIPE_PORT",
    "route_prefix": "RAYPIPE_SCORE_ROUTE",
    "min_replicas": "the platform's own number of instances",
    "max_replicas": "the platform's own number of instances",
    "target_ongoing_requests": "the platform's own autoscaling",
    "upscale_delay_s": "the platform's own autoscaling",
    "downscale_delay_s": "the platform's own autoscaling",
    "ingress": "nothing: it is HAProxy",
}
"""Fields of the file's serve part that say nothing in a container -> what does."""


class PlatformPath(NamedTuple):
    """Where a platform asks for what is answered elsewhere already.

    Attributes:
        answered_as: the known path; `{model}` in it stands for the model's name.
    """

    method: str
    path: str
    answered_as: str


@dataclass(frozen=True)
class Settings:
    """What one container does.

    Attributes:
        spec: host, port and limits.
        store_uri: a store, or a folder that one lies in.
        reference: MODEL@VERSION or MODEL@ALIAS; None: the only model there is.
        code_dir: folder of the model's own module (`kind: import`).
        num_workers: processes that each hold the model.
        paths: where the platform asks, beside the usual paths.
    """

    spec: ServeSpec
    store_uri: str
    reference: str | None
    code_dir: str | None
    num_workers: int
    paths: tuple[PlatformPath, ...]


def read_settings(environ: Mapping[str, str]) -> Settings:
    """What the variables say; an empty one counts as unset, as platforms set what they do not use.

    Raises:
        SpecError: one of them does not fit; it is named.
    """
    if environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true":
        raise SpecError(
            "SAGEMAKER_MULTI_MODEL: this image serves one model a container", "make an endpoint of one model each"
        )
    num_workers = _number(environ, ("RAYPIPE_WORKERS", "SAGEMAKER_MODEL_SERVER_WORKERS"), "1", MAX_WORKERS)
    asked = (
        PlatformPath("GET", _path(environ, "AIP_HEALTH_ROUTE"), HEALTH_PATH),
        PlatformPath("POST", _path(environ, "RAYPIPE_SCORE_ROUTE") or SCORE_ROUTE, INVOCATIONS_PATH),
        PlatformPath("POST", _path(environ, "AIP_PREDICT_ROUTE"), INSTANCES_PATH),
    )
    return Settings(
        spec=_serve_spec(environ, num_workers),
        store_uri=_first(environ, "RAYPIPE_STORE", "AIP_STORAGE_URI", "AZUREML_MODEL_DIR")[1] or MODEL_FOLDER,
        reference=environ.get("RAYPIPE_MODEL") or None,
        code_dir=_code_dir(environ),
        num_workers=num_workers,
        paths=tuple(each for each in asked if each.path),
    )


def _serve_spec(environ: Mapping[str, str], num_workers: int) -> ServeSpec:
    port = _number(environ, ("RAYPIPE_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"), USUAL_PORT, 65535)
    fields: dict[str, Any] = {"host": environ.get("RAYPIPE_HOST") or EVERY_ADDRESS, "port": port}
    own = _own_fields(environ.get("RAYPIPE_SERVE") or "{}")
    resources = own.get("resources", {})
    if isinstance(resources, dict):
        own["resources"] = {"num_cpus": max(1, cpus_here() // num_workers), **resources}
    fields |= own
    try:
        return ServeSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        variable = {"host": "RAYPIPE_HOST"}.get(place, f"RAYPIPE_SERVE: {place}")
        raise SpecError(f"{variable}: {first['msg'].removeprefix('Value error, ')}") from None


def _own_fields(text: str) -> dict[str, Any]:
    """RAYPIPE_SERVE, checked for fields that would do nothing."""
    example = 'for example {"max_body_bytes": 33554432, "request_timeout_s": 60}'
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SpecError(f"RAYPIPE_SERVE: is not valid JSON: {error}", example) from None
    if not isinstance(fields, dict):
        raise SpecError("RAYPIPE_SERVE: must be a JSON object", example)
    for name in fields:
        if name in PLATFORMS_OWN:
            raise SpecError(f"RAYPIPE_SERVE: {name} means nothing in a container", f"use {PLATFORMS_OWN[name]}")
    return fields


def _code_dir(environ: Mapping[str, str]) -> str | None:
    folder = environ.get("RAYPIPE_CODE")
    if folder and not Path(folder).is_dir():
        raise SpecError("RAYPIPE_CODE: no such folder in this container", "copy the model's own module into the image")
    return folder or None


def _path(environ: Mapping[str, str], variable: str) -> str:
    """A path, or nothing where the platform names none."""
    found = environ.get(variable, "")
    if found and not PATH.fullmatch(found):
        raise SpecError(f"{variable}: found {found[:80]!r}; must be a path like /predict, without query and escapes")
    return found


def _number(environ: Mapping[str, str], variables: tuple[str, ...], usual: str, most: int) -> int:
    variable, text = _first(environ, *variables)
    text = text or usual
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= most:
        raise SpecError(f"{variable}: found {text[:80]!r}; must be a whole number from 1 to {most}")
    return int(text)


def _first(environ: Mapping[str, str], *variables: str) -> tuple[str, str | None]:
    """The first that is set, and its value."""
    return next(((name, environ[name]) for name in variables if environ.get(name)), (variables[0], None))


def cpus_here() -> int:
    """CPUs this process may use: those it may run on, or the container's share of their time if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no limit is set, or it is kept elsewhere
        return allowed
