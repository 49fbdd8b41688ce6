"""Which registered version a new model has to beat."""

from __future__ import annotations

from raypipe.pipeline.state import read_json
from raypipe.records import ArtifactRef, ModelVersion
from raypipe.registry.aliases import Aliases
from raypipe.registry.versions import DEFAULT_ALIAS, get
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout


def rival_of(spec: PipelineSpec, store: Store, artifact: ArtifactRef) -> ModelVersion | None:
    """The version `artifact` is compared with; None when no gate compares, or there is nothing to compare with.

    A model that is the champion already is not measured against itself: that would say nothing, and would turn a pass
    into a failure when the same file runs twice. It keeps the rival it beat when it was registered.
    """
    if all(gate.min_gain_over_champion is None for gate in spec.evaluate.gates):
        return None
    alias = Aliases(store, spec.model_name).get(spec.registry.alias or DEFAULT_ALIAS)
    if alias is None:
        return None
    champion = get(store, spec.model_name, alias.version)
    if champion.artifact.digest != artifact.digest:
        return champion
    judged = read_json(store, layout.inputs(champion.run_id, "evaluate")) or {}
    beaten = judged.get("champion")
    return None if beaten is None else get(store, spec.model_name, int(beaten.rpartition("@")[2]))
