"""raypipe: one file takes a dataset to an autoscaling endpoint, on a laptop or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raypipe.pipeline.api import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> object:
    # Ray and torch take seconds to import; `raypipe validate` must not pay for them.
    if name == "Pipeline":
        from raypipe.pipeline.api import Pipeline

        return Pipeline
    raise AttributeError(f"module 'raypipe' has no attribute '{name}'")
