"""Under which name a model is kept."""

from __future__ import annotations

from typing import Literal

from raypipe.spec.base import AliasName, Name, Spec


class RegistrySpec(Spec):
    """Where the model goes when its gates hold."""

    model: Name | None = None
    """Name in the registry; unset: the pipeline's name."""
    alias: AliasName | None = "champion"
    """Alias moved to the new version; null leaves aliases alone."""
    known_version: Literal["keep_alias", "move_alias"] = "keep_alias"
    """When a run finds that its model is registered already, as the run of an older file does: whether the alias stays
    where it is, which the run then says, or is pointed at that version. The run serves the version it found."""
