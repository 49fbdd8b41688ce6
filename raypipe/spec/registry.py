"""Under which name a model is kept."""

from __future__ import annotations

from raypipe.spec.base import AliasName, Name, Spec


class RegistrySpec(Spec):
    """Where the model goes when its gates hold."""

    model: Name | None = None
    """Name in the registry; unset: the pipeline's name."""
    alias: AliasName | None = "champion"
    """Alias moved to the new version; null leaves aliases alone."""
