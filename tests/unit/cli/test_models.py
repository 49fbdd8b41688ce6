"""Commands of the registry show what is gone or damaged beside what is whole, and change nothing on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypipe.cli.main import app
from raypipe.registry.aliases import Aliases
from raypipe.registry.stage import register
from raypipe.registry.versions import get
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import Store, layout, open_store
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context

runner = CliRunner()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Versions 1, 2 and 3 of `digits`; champion went 1, 2, 3, and canary is 2."""
    monkeypatch.setenv("RAYPIPE_STORE", str(tmp_path / "store"))
    store = open_store()
    dataset = tiny.dataset(store, num_test_rows=10)
    for number in (1, 2, 3):
        trained = tiny.trained(store, dataset, run_id=f"r{number}", strength=number)
        ctx = run_context(store, run_id=f"r{number}")
        register(RegistrySpec(), "digits", trained, dataset, tiny.report(trained), ctx)
    Aliases(store, "digits").move("canary", to=2, expect=None)
    return store


def delete(store: Store, number: int) -> None:
    store.delete_prefix(f"{layout.versions('digits')}/{number}")


def answered(*words: str) -> str:
    answer = runner.invoke(app, list(words))
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_versions_with_a_damaged_one_lists_it_with_the_reason_and_the_others(store: Store):
    store.write(layout.version("digits", 2), b"{}")
    lines = answered("versions", "digits").splitlines()
    assert [line.split()[0] for line in lines] == ["version", "1", "2", "3"]
    assert "damaged" in lines[2] and "versions/2/version.json" in lines[2]
    rows = json.loads(answered("versions", "digits", "--json"))
    assert [row["version"] for row in rows] == [1, 2, 3]
    assert ["damaged" in row for row in rows] == [False, True, False] and rows[2]["run"] == "r3"


def test_models_shows_an_alias_whose_version_is_gone_as_such(store: Store):
    delete(store, 2)
    assert "champion -> 3, canary -> 2 (its version is gone)" in answered("models")
    (row,) = json.loads(answered("models", "--json"))
    assert (row["versions"], row["broken_aliases"]) == ([1, 3], {"canary": "its version is gone"})


def test_models_and_versions_show_a_damaged_alias_and_go_on(store: Store):
    store.write(layout.alias("digits", "canary"), b"{}")
    shown = answered("models")
    assert "champion -> 3" in shown and "canary -> ? (" in shown and "is damaged" in shown
    assert len(answered("versions", "digits").splitlines()) == 4


def test_aliases_shows_every_move_with_its_time(store: Store):
    lines = [line.split() for line in answered("aliases", "digits").splitlines()[1:]]
    assert [(line[0], line[1], line[3:]) for line in lines] == [
        ("canary", "2", ["now"]),
        ("champion", "1", []),
        ("champion", "2", []),
        ("champion", "3", ["now"]),
    ]
    champion = json.loads(answered("aliases", "digits", "--json"))[1]
    assert [move["version"] for move in champion["history"]] == [1, 2, 3]
    assert (champion["version"], champion["rolls_back_to"], champion["version_exists"]) == (3, 2, True)


def test_aliases_says_what_is_gone_or_damaged(store: Store):
    delete(store, 3)
    store.write(layout.alias("digits", "canary"), b"{}")
    shown = answered("aliases", "digits")
    assert "now, but this version is gone" in shown and "canary" in shown and "is damaged" in shown


def test_aliases_of_an_unknown_model_exits_2(store: Store):
    assert runner.invoke(app, ["aliases", "nope"]).exit_code == 2


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_promote_of_a_damaged_artifact_exits_2_and_moves_nothing(store: Store, option: list[str]):
    key = f"{get(store, 'digits', 1).artifact.key}/weights.safetensors"
    store.write(key, store.read(key)[:-1])
    answer = runner.invoke(app, ["promote", "digits@1", *option])
    assert answer.exit_code == 2 and "digits@1 cannot be served" in answer.stderr
    alias = Aliases(store, "digits").get("champion")
    assert alias is not None and alias.version == 3


def test_rollback_to_a_version_that_is_gone_exits_2_and_says_what_to_type(store: Store):
    delete(store, 2)
    answer = runner.invoke(app, ["rollback", "digits"])
    assert answer.exit_code == 2 and "raypipe promote digits@1 --alias champion" in answer.stderr
    assert "digits@champion -> digits@1 (was digits@3)" in answered("promote", "digits@1")
    assert "digits@champion -> digits@3 (was digits@1)" in answered("rollback", "digits")


@pytest.mark.parametrize("given", ["option", "variable"])
def test_predict_asks_the_cluster_that_is_named_and_no_other(
    store: Store, tmp_path: Path, free_port: int, given: str, monkeypatch: pytest.MonkeyPatch
):
    rows, nobody = tmp_path / "rows.jsonl", f"127.0.0.1:{free_port}"
    rows.write_text("{}\n")
    words = ["predict", "digits", "--input", str(rows), "--output", str(tmp_path / "out")]
    if given == "option":
        words += ["--address", nobody]
    else:
        monkeypatch.setenv("RAY_ADDRESS", nobody)
    answer = runner.invoke(app, words)
    assert answer.exit_code == 4
    assert f":{free_port}: " in answer.stderr, "Ray calls the loopback address by the node's"


def test_export_makes_a_folder_or_an_archive_and_says_where(store: Store, tmp_path: Path):
    folder, archive = str(tmp_path / "out"), tmp_path / "model.tar.gz"
    assert answered("export", "digits@champion", "--out", folder) == f"digits@3 -> {folder}\n"
    assert get(open_store(folder), "digits", 3) == get(store, "digits", 3)
    document = json.loads(answered("export", "digits@2", "--out", str(archive), "--json"))
    assert document == {"model": "digits", "version": 2, "out": str(archive)} and archive.is_file()
    again = runner.invoke(app, ["export", "digits@2", "--out", str(archive)])
    assert again.exit_code == 2 and "is there already" in again.stderr
