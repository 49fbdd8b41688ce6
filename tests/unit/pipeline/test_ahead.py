"""What is done before its stage, and goes wrong."""

from __future__ import annotations

import pytest

from raypipe.data.formats import FORMATS
from raypipe.pipeline.stages import import_rooms


def test_import_that_fails_before_its_stage_is_left_for_the_stage_to_tell(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(FORMATS["sklearn"]), "slow_imports", ("no_such_module",))
    import_rooms(["data"], "sklearn")
