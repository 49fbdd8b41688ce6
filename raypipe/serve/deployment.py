"""A class and its arguments -> an application of Ray Serve, as the file describes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raypipe.errors import ServeError
from raypipe.runtime.resources import ray_options
from raypipe.serve.ray_serve import last_line
from raypipe.spec.serve import ServeSpec

LEAVE_TIMEOUT_S = 20.0
"""Longest a replica that leaves may take over the requests it has; none of them lasts beyond request_timeout_s."""

START_ATTEMPTS = 2
"""The model has been loaded once before anything started; a replica that fails twice will go on failing."""

NEVER_ONGOING = 100_000
"""Requests that Ray lets into a replica. The application counts and refuses by itself (room.py): what waited at Ray's
gate would wait unseen, without an end."""

LOOK_BACK_S = 10.5
"""Load is averaged over this; Ray 2.60 wants more than 10 s here."""


def run_application(spec: ServeSpec, name: str, app: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Hand an application to Serve; does not wait.

    Args:
        app: the class of its replicas, made with `args`.
    Raises:
        ServeError: Serve refuses it.
    """
    from ray import serve
    from ray.serve.config import AutoscalingConfig
    from ray.serve.exceptions import RayServeException
    from ray.serve.schema import LoggingConfig

    deployment = serve.deployment(
        app,
        name=name,
        autoscaling_config=AutoscalingConfig(
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            target_ongoing_requests=spec.target_ongoing_requests,
            upscale_delay_s=spec.upscale_delay_s,
            downscale_delay_s=spec.downscale_delay_s,
            look_back_period_s=LOOK_BACK_S,
        ),
        max_ongoing_requests=NEVER_ONGOING,
        max_constructor_retry_count=START_ATTEMPTS,
        graceful_shutdown_timeout_s=min(spec.request_timeout_s, LEAVE_TIMEOUT_S),
        ray_actor_options=ray_options(spec.resources),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    target = serve.RunTarget(target=deployment.bind(*args), name=name, route_prefix=prefix(spec) or "/")
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except RayServeException as error:  # e.g. another application has this route
        raise ServeError(
            f"Ray Serve refuses {name}: {last_line(str(error))}",
            "choose another serve.route_prefix, or stop the other application: raypipe stop NAME",
        ) from None


def prefix(spec: ServeSpec) -> str:
    """Of the application's paths; empty at the root."""
    return spec.route_prefix.rstrip("/")
