"""How a registered model answers requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.resources import ResourceSpec


class BatchingSpec(Spec):
    """How requests that arrive together share one model call."""

    max_rows: int = Field(default=256, ge=1)
    """Rows gathered into one model call at most; a larger request is one call by itself."""
    wait_ms: float = Field(default=0.0, ge=0, le=10_000)
    """Longest wait for company; 0 takes what is already there."""


class ServeSpec(Spec):
    """An autoscaling HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 on a cluster whose network you control."""
    port: int = Field(default=8000, ge=1, le=65535)
    route_prefix: str = Field(default="/", pattern=r"^/[A-Za-z0-9._/-]*$")
    min_replicas: int = Field(default=1, ge=1, le=4096)
    max_replicas: int = Field(default=2, ge=1, le=4096)
    target_ongoing_requests: float = Field(default=16.0, gt=0)
    """Requests in flight a replica should carry; autoscaling holds this."""
    max_ongoing_requests: int = Field(default=200, ge=1)
    """Requests in flight one replica accepts."""
    upscale_delay_s: float = Field(default=5.0, ge=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)
    resources: ResourceSpec = ResourceSpec()
    """What one replica occupies."""
    batching: BatchingSpec = BatchingSpec()
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Larger request bodies get 413."""
    max_request_rows: int = Field(default=10_000, ge=1)
    """More rows in one request get 413."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    ingress: Literal["auto", "haproxy", "python"] = "auto"
    """`auto`: HAProxy on Linux, Ray's Python proxy elsewhere."""
    start_timeout_s: float = Field(default=180.0, gt=0)
    """Longest wait for the first healthy replica."""

    @model_validator(mode="after")
    def replicas_ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} must not exceed max_replicas={self.max_replicas}")
        return self
