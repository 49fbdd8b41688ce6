"""Batch inference: rows in, the same rows with predictions out."""

from __future__ import annotations

from pydantic import Field, field_validator

from raypipe.spec.addresses import check_address
from raypipe.spec.base import Spec
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.sources import Source


class BatchSpec(Spec):
    """One batch inference."""

    source: Source
    """Rows to predict."""
    output: str
    """Folder or `s3://` prefix for Parquet shards."""

    @field_validator("output")
    @classmethod
    def no_secret_in_the_output(cls, output: str) -> str:
        check_address(output)
        return output

    num_workers: int = Field(default=1, ge=1, le=4096)
    """Scoring processes."""
    resources: ResourceSpec = ResourceSpec()
    """What one of them occupies."""
    worker_batch_size: int = Field(default=1024, ge=1)
    """Rows per model call."""
