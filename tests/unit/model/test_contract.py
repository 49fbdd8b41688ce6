"""Every model of the zoo keeps the model contract, and every file it leaves is free of pickle."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from raypipe.model.zoo import ZOO
from raypipe.spec.model import Model
from raypipe.testing.contracts import ModelContract

pytestmark = pytest.mark.thorough

CHECKS = [name for name in vars(ModelContract) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ZOO)
def test_model_of_the_zoo_keeps_the_contract(name: str, check: str, tmp_path: Path) -> None:
    getattr(ModelContract(name, tmp_path), check)()


def test_zoo_and_spec_name_the_same_models() -> None:
    union = typing.get_args(Model)[0]

    assert {typing.get_args(m.model_fields["kind"].annotation)[0] for m in typing.get_args(union)} == set(ZOO)


@pytest.mark.skipif(importlib.util.find_spec("modelscan") is None, reason="modelscan does not install on Python 3.13")
def test_store_after_training_is_clean_for_modelscan(tmp_path: Path) -> None:
    contract = ModelContract("mlp", tmp_path)
    contract.check_no_pickle()

    scan = subprocess.run(
        [str(Path(sys.executable).parent / "modelscan"), "-p", str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert scan.returncode in (0, 3), scan.stdout + scan.stderr  # 3: no file of a kind that can hold code
    assert "Total Issues: 0" in scan.stdout or "No issues found" in scan.stdout
