"""What is done before its stage, and goes wrong."""

from __future__ import annotations

import pytest

from raypipe.data.formats import FORMATS
from raypipe.pipeline.stages import import_rooms
from raypipe.spec.pipeline import PipelineSpec


def test_import_that_fails_before_its_stage_is_left_for_the_stage_to_tell(monkeypatch: pytest.MonkeyPatch):
    data = {"source": {"format": "sklearn", "dataset": "digits"}, "target": "label"}
    spec = PipelineSpec.model_validate({"name": "digits", "data": data, "model": {"kind": "linear"}})
    monkeypatch.setattr(type(FORMATS["sklearn"]), "slow_imports", ("no_such_module",))
    import_rooms(["data"], spec)
