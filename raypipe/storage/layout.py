"""The only file that spells an object key."""

from __future__ import annotations

from collections.abc import Callable

from raypipe.errors import SpecError
from raypipe.spec.base import check_alias, check_name

WEIGHTS = "weights.safetensors"
"""Name of the file of weights below the prefix of an artifact."""


def name(text: str, what: str = "name", check: Callable[[str], str] = check_name) -> str:
    """`text` if it may be part of a key.

    Raises:
        SpecError: it may not; `check` says why.
    """
    try:
        return check(text)
    except ValueError as error:
        raise SpecError(f"{what}: {error}") from None


def dataset(dataset_name: str, version: str) -> str:
    """Prefix of one dataset version."""
    return f"datasets/{name(dataset_name)}/{name(version)}"


def dataset_record(dataset_name: str, version: str) -> str:
    """The record written last: its presence makes the version complete."""
    return f"{dataset(dataset_name, version)}/record.json"


def latest_dataset(dataset_name: str) -> str:
    """Which version was prepared last: what drift is measured against."""
    return f"datasets/{name(dataset_name)}/latest.json"


def shard(dataset_name: str, version: str, split: str, index: int, part: int = 0) -> str:
    """Rows of one range of row ids; `part` counts where these are too many for one shard."""
    return f"{dataset(dataset_name, version)}/{name(split)}/{index:05d}{f'-{part}' if part else ''}.arrow"


def bad_rows(dataset_name: str, version: str) -> str:
    return f"{dataset(dataset_name, version)}/bad_rows.jsonl"


def profile(dataset_name: str, version: str) -> str:
    """What the columns of a dataset version hold; later data is compared with it."""
    return f"{dataset(dataset_name, version)}/profile.json"


def runs() -> str:
    return "runs"


def run(run_id: str) -> str:
    return f"{runs()}/{name(run_id, 'run id')}"


def first_weights(digest: str) -> str:
    """Prefix of a file that trainings start from, addressed by content."""
    return f"weights/{name(digest[:32])}"


def run_spec(run_id: str) -> str:
    return f"{run(run_id)}/spec.json"


def events(run_id: str) -> str:
    """Prefix of what happened in a run: parts that are written once, in order of their numbers."""
    return f"{run(run_id)}/events"


def events_part(run_id: str, number: int) -> str:
    """JSON lines, one an event."""
    return f"{events(run_id)}/{number:08d}.jsonl"


def record(run_id: str, stage: str) -> str:
    return f"{run(run_id)}/{name(stage)}/record.json"


def inputs(run_id: str, stage: str) -> str:
    """What a stage of a run was asked to do; written before it starts."""
    return f"{run(run_id)}/{name(stage)}/inputs.json"


def last_run(pipeline: str, stage: str) -> str:
    """Which run of a pipeline did a stage last, and from which inputs: what a plan compares with."""
    return f"pipelines/{name(pipeline)}/{name(stage)}.json"


def unfinished_runs(pipeline: str) -> str:
    """Prefix of the runs of a pipeline that have begun and not ended."""
    return f"pipelines/{name(pipeline)}/unfinished"


def unfinished_run(pipeline: str, run_id: str) -> str:
    """There from the begin of a run until there is nothing to go on with."""
    return f"{unfinished_runs(pipeline)}/{name(run_id, 'run id')}.json"


def artifact(run_id: str, stage: str) -> str:
    """Prefix of the artifact a stage packages."""
    return f"{run(run_id)}/{stage}/artifact"


def report(run_id: str) -> str:
    """The page that shows the run."""
    return f"{run(run_id)}/report.html"


def evaluation_text(run_id: str) -> str:
    """The evaluation as Markdown, for people."""
    return f"{run(run_id)}/evaluate/report.md"


def evaluation_confusions(run_id: str) -> str:
    """How often each class was taken for each other, as CSV; where the record cannot hold it."""
    return f"{run(run_id)}/evaluate/confusions.csv"


def evaluation_details(run_id: str) -> str:
    """Calibration, residuals and the worst rows, for the run's report."""
    return f"{run(run_id)}/evaluate/details.json"


def tensorboard(run_id: str) -> str:
    """Folder of TensorBoard's event files."""
    return f"{run(run_id)}/tensorboard"


def checkpoints(run_id: str) -> str:
    """Prefix of a training's checkpoints.

    Args:
        run_id: of a run, or what `training_of_trial` gives.
    """
    owner, of_trial, trial_id = run_id.partition("/")
    return f"{trial(owner, trial_id) if of_trial else run(owner)}/train/checkpoints"


def training_of_trial(run_id: str, trial_id: str) -> str:
    """What a trial's training has for a run id: its checkpoints lie with the trial."""
    return f"{run_id}/{trial_id}"


def checkpoint(run_id: str, step: int) -> str:
    return f"{checkpoints(run_id)}/step-{step:08d}"


def checkpoint_step(key: str) -> int | None:
    """Optimizer steps of the complete checkpoint whose manifest has this key; None for any other key."""
    folder, _, file = key.rpartition("/")
    step = folder.rpartition("/step-")[2]
    return int(step) if file == "manifest.json" and step.isascii() and step.isdigit() else None


def train_scratch(run_id: str) -> str:
    """Prefix of Ray Train's own notes while a training runs; empty afterwards."""
    return f"{run(run_id)}/train/ray"


def search(run_id: str) -> str:
    """Which search the trials of a run belong to, and the time it has taken."""
    return f"{run(run_id)}/tune/search.json"


def trials(run_id: str) -> str:
    return f"{run(run_id)}/tune/trials"


def trial(run_id: str, trial_id: str) -> str:
    return f"{trials(run_id)}/{name(trial_id)}"


def trial_artifact(run_id: str, trial_id: str) -> str:
    """Prefix of the artifact a trial packages."""
    return f"{trial(run_id, trial_id)}/artifact"


def trial_point(run_id: str, trial_id: str) -> str:
    """What the search drew for a trial; written before it begins."""
    return f"{trial(run_id, trial_id)}/point.json"


def trial_end(run_id: str, trial_id: str) -> str:
    """How a trial ended that did not finish: stopped early, diverged, failed."""
    return f"{trial(run_id, trial_id)}/end.json"


def trial_dataset(run_id: str, trial_id: str) -> str:
    """The dataset a trial was trained on; its own where data fields are searched."""
    return f"{trial(run_id, trial_id)}/dataset.json"


def trial_record(run_id: str, trial_id: str) -> str:
    """The record written last: its presence makes the trial finished."""
    return f"{trial(run_id, trial_id)}/record.json"


def is_trial_record(key: str) -> bool:
    """Whether a key below `trials` is that of a `trial_record`."""
    return key.endswith("/record.json")


def is_trial_point(key: str) -> bool:
    """Whether a key below `trials` is that of a `trial_point`."""
    return key.endswith("/point.json")


def fingerprint(stage: str, value: str) -> str:
    """Where a stage's outcome is found again by the hash of its inputs."""
    return f"stages/{name(stage)}/{name(value)}.json"


def models() -> str:
    return "models"


def model(model_name: str) -> str:
    return f"models/{name(model_name, 'model name')}"


def model_artifact(model_name: str, digest: str) -> str:
    """Parts of a version, addressed by content."""
    return f"{model(model_name)}/artifacts/{name(digest[:32])}"


def versions(model_name: str) -> str:
    return f"{model(model_name)}/versions"


def version(model_name: str, number: int) -> str:
    """The record whose presence makes a version exist."""
    return f"{versions(model_name)}/{number}/version.json"


def numbers(model_name: str) -> str:
    return f"{model(model_name)}/numbers"


def number(model_name: str, taken: int) -> str:
    """Who took a version number; it stays when the version is deleted, so that no number names two models."""
    return f"{numbers(model_name)}/{taken}.json"


def aliases(model_name: str) -> str:
    return f"{model(model_name)}/aliases"


def alias(model_name: str, alias_name: str) -> str:
    return f"{aliases(model_name)}/{name(alias_name, 'alias', check_alias)}.json"


def probes() -> str:
    return "probe"


def probe(nonce: str) -> str:
    """Written, read back and deleted to prove that a store works."""
    return f"{probes()}/{name(nonce)}"
