"""Which registered version a new model has to beat."""

from __future__ import annotations

from raypipe.evaluate.gates import needs_champion
from raypipe.pipeline.state import read_json
from raypipe.records import ArtifactRef, ModelVersion
from raypipe.registry.aliases import Aliases
from raypipe.registry.versions import DEFAULT_ALIAS, get, pointed_at, version_numbers
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout


def champion_of(spec: PipelineSpec, store: Store) -> ModelVersion | None:
    """The version that gates compare with now; None when no gate compares, or there is none yet.

    Raises:
        RegistryError: it is gone or damaged, so that nobody can say what is better.
    """
    if not needs_champion(spec.evaluate.gates):
        return None
    alias = Aliases(store, spec.model_name).get(spec.registry.alias or DEFAULT_ALIAS)
    return None if alias is None else pointed_at(store, alias)


def rival_ref(spec: PipelineSpec, store: Store, artifact: ArtifactRef) -> str | None:
    """The version that `artifact` is compared with, MODEL@VERSION; None when no gate compares, or there is none.

    A model that is the champion already is not measured against itself: that would say nothing, and would turn a pass
    into a failure when the same file runs twice. It keeps the rival it beat when it was registered, which may be gone.

    Raises:
        RegistryError: see `champion_of`.
    """
    champion = champion_of(spec, store)
    if champion is None:
        return None
    if champion.artifact.digest != artifact.digest:
        return f"{champion.model}@{champion.version}"
    judged = read_json(store, layout.inputs(champion.run_id, "evaluate")) or {}
    return judged.get("champion")


def find_rival(store: Store, ref: str) -> ModelVersion | None:
    """The version that `rival_ref` named; None where it has been deleted."""
    model, _, number = ref.rpartition("@")
    return get(store, model, int(number)) if int(number) in version_numbers(store, model) else None
