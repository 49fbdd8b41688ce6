"""Projects that `raypipe init` makes run as they are, reach their gates, and answer the request they hold."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from raypipe.cli.main import app
from raypipe.model.predictor import Predictor
from raypipe.model.tasks import json_able
from raypipe.registry.versions import get
from raypipe.serve.checker import columns_of
from raypipe.storage import open_store

pytestmark = pytest.mark.ray


def raypipe(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("template", ["tabular", "images", "text", "regression"])
def test_project_of_a_template_reaches_its_gates_and_answers_its_request(
    ray_cluster: SimpleNamespace, tmp_path: Path, template: str
):
    folder, store = tmp_path / "p", tmp_path / "kept"
    assert raypipe("init", folder, "--template", template).exit_code == 0
    done = raypipe("run", folder, "--until", "register", "--store", store)
    assert done.exit_code == 0, done.stderr

    opened = open_store(str(store))
    predictor = Predictor.load(opened, get(opened, "p", 1).artifact, code_dir=folder)
    rows = json.loads((folder / "request.json").read_text())["instances"]
    answers = predictor.predict(columns_of(rows, predictor.signature, max_rows=1))
    (answer,) = json_able(predictor.task.json_rows(answers.values))
    expected = {"tabular": 0, "images": 0, "text": "delivery"}
    if template == "regression":
        assert 25 <= answer <= 346  # what the data hold
    else:
        assert answer["label"] == expected[template]
