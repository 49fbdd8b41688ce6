"""CPUs, GPUs, memory, worker counts: one vocabulary for every room."""

from __future__ import annotations

from pydantic import Field

from raypipe.spec.base import Spec


class ResourceSpec(Spec):
    """What one process of a stage occupies on a cluster (Ray's logical resources)."""

    num_cpus: float = Field(default=1.0, gt=0, le=1024)
    """Logical CPUs; fractions share a core."""

    num_gpus: float = Field(default=0.0, ge=0, le=64)
    """GPUs; 0 runs on the CPU."""

    memory_bytes: int | None = Field(default=None, ge=1)
    """Memory Ray reserves for scheduling; unset reserves none."""
