"""The whole file: one tree, and the rules that span rooms."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from raypipe.spec.addresses import check_address
from raypipe.spec.base import Name, Spec
from raypipe.spec.data import DataSpec
from raypipe.spec.evaluate import EvaluateSpec
from raypipe.spec.metrics import known_metrics
from raypipe.spec.model import AudioCnnModel, CnnModel, ImportModel, Model, ResNetModel
from raypipe.spec.optim import PlateauSchedule
from raypipe.spec.ranges import Choice
from raypipe.spec.registry import RegistrySpec
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.sequences import TASK as SEQUENCES
from raypipe.spec.serve import ServeSpec
from raypipe.spec.sources import TextWindowsSource
from raypipe.spec.train import TrainSpec
from raypipe.spec.tune import PbtSearch, TuneSpec

Tracker = Literal["tensorboard", "mlflow"]


class PipelineSpec(Spec):
    """From a dataset to a live endpoint."""

    name: Name
    """The pipeline's name; also the model's, unless `registry.model` says otherwise."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """One seed for initial weights, shuffling, dropout and search."""
    store: str | None = None
    """Where records, shards, checkpoints and models are kept: a folder (relative to where the command runs) or
    `s3://bucket/prefix`. Unset: $RAYPIPE_STORE, else `.raypipe`."""

    data: DataSpec
    """The dataset: where it is, what it must hold, how it is divided and computed."""
    model: Model
    """The network."""
    train: TrainSpec = TrainSpec()
    """How it is trained."""
    tune: TuneSpec | None = None
    """Present: search first; the best trial becomes the model."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """How it is judged."""
    registry: RegistrySpec = RegistrySpec()
    """Where it is kept when it is good enough."""
    serve: ServeSpec | None = None
    """Present: the pipeline ends in a live endpoint."""
    track: list[Tracker] = []
    """Where a run's figures are shown as well: `tensorboard` (files below the run, for `tensorboard --logdir
    STORE/runs`), `mlflow` (where $MLFLOW_TRACKING_URI says; needs `raypipe[mlflow]`)."""

    @property
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return self.registry.model or self.name

    @property
    def own_modules(self) -> dict[tuple[str, str], str]:
        """Section and field of the file -> `module:function` of the user's own code that it names."""
        named = {("train", "step"): self.train.step}
        if isinstance(self.model, ImportModel):
            named = {("model", "path"): self.model.path, **named}
        return {field: path for field, path in named.items() if path is not None}

    @property
    def largest_train(self) -> TrainSpec:
        """`train` with the most epochs, workers and resources that a trial may ask for."""
        train = self.train
        for name in ("epochs", "num_workers"):
            train = train.model_copy(update={name: self._largest(train, TrainSpec(), name)})
        resources = {
            name: self._largest(train.resources, ResourceSpec(), name, "resources.")
            for name in ResourceSpec.model_fields
        }
        train = train.model_copy(update={"resources": train.resources.model_copy(update=resources)})
        return train

    def _largest(self, written: Spec, unset: Spec, name: str, section: str = "") -> Any:
        """The most that a field of `train` has in any trial: of what is drawn for it, or else for a section around it
        (where a choice leaves it out, it is unset), or else of what the file says."""
        space = self.tune.space if self.tune else {}
        parts = f"train.{section}{name}".split(".")
        for depth in range(len(parts), 0, -1):
            drawn = space.get(".".join(parts[:depth]))
            if drawn is not None:
                values = [_inside(value, parts[depth:], getattr(unset, name)) for value in drawn.bounds]
                return max((value for value in values if value is not None), default=None)
        return getattr(written, name)

    @field_validator("store")
    @classmethod
    def no_secret_in_the_store(cls, store: str | None) -> str | None:
        if store is not None:
            check_address(store)
        return store

    @model_validator(mode="after")
    def metrics_fit_the_task(self) -> Self:
        tokenizer = self.data.source.tokenizer if isinstance(self.data.source, TextWindowsSource) else "char"
        known = known_metrics(self.data.task, self.data.targets, self.train.quantile, tokenizer)
        watched: list[tuple[str, str, tuple[str, ...]]] = [
            ("evaluate.gates", gate.metric, known) for gate in self.evaluate.gates
        ]
        val_known = ("val_loss", *(f"val_{name}" for name in known))
        if self.train.early_stopping is not None:
            watched.append(("train.early_stopping.metric", self.train.early_stopping.metric, val_known))
        if isinstance(self.train.schedule, PlateauSchedule):
            watched.append(("train.schedule.metric", self.train.schedule.metric, val_known))
        if self.tune is not None:
            watched.append(("tune.metric", self.tune.metric, val_known))
        for where, metric, allowed in watched:
            if metric not in allowed:
                raise ValueError(f"{where}: '{metric}' is not a metric of {self.data.task}; use one of {list(allowed)}")
        return self

    @model_validator(mode="after")
    def validation_rows_exist(self) -> Self:
        needs = "tune" if self.tune is not None else "train.early_stopping" if self.train.early_stopping else None
        if isinstance(self.train.schedule, PlateauSchedule):
            needs = needs or "train.schedule.kind: plateau"
        if needs and "val" not in self.data.wanted_splits:
            raise ValueError(
                f"{needs} compares on validation rows, but data.split gives none; set data.split.val_frac above 0, or "
                "name a data.val_source"
            )
        return self

    @model_validator(mode="after")
    def loss_fits_the_task(self) -> Self:
        classifies = self.data.task == "classification"
        by_likelihood = self.data.task != "regression"
        if self.train.loss != "auto" and (self.train.loss == "cross_entropy") != by_likelihood:
            raise ValueError(
                f"train.loss: '{self.train.loss}' does not fit data.task: {self.data.task}; leave it 'auto'"
            )
        if self.train.class_weights is not None and not classifies:
            raise ValueError("train.class_weights needs data.task: classification")
        if self.train.balance is not None and not classifies:
            raise ValueError("train.balance needs data.task: classification")
        if self.train.label_smoothing_frac and not classifies:
            raise ValueError("train.label_smoothing_frac needs data.task: classification")
        if self.train.target_transform in ("standardize", "log") and by_likelihood:
            what = "tokens" if self.data.task == "language_model" else "classes"
            raise ValueError(
                f"train.target_transform: {self.train.target_transform} needs data.task: regression; {what} are not "
                "numbers to scale, so leave it 'auto'"
            )
        return self

    @model_validator(mode="after")
    def network_fits_the_task(self) -> Self:
        kind, task = self.model.kind, self.data.task
        of_task = {"language_model": "gpt", SEQUENCES: "encoder_decoder"}
        if kind != "import" and kind != of_task.get(task, kind):
            raise ValueError(f"model.kind: {kind} does not fit data.task: {task}; use {of_task[task]} or import")
        if task not in of_task and kind in of_task.values():
            wanted = next(task for task, its_kind in of_task.items() if its_kind == kind)
            raise ValueError(
                f"model.kind: {kind} does not fit data.task: {task}; use another kind, or set data.task: {wanted}"
            )
        return self

    @model_validator(mode="after")
    def trials_compare_one_loss(self) -> Self:
        """A loss of another kind or on another scale is another number, however good the model is."""
        if self.tune is None:
            return self
        if "train.quantile" in self.tune.space:
            raise ValueError(
                "tune.space: train.quantile says what the model tells, so trials that differ in it cannot be compared; "
                "search once a quantile"
            )
        if self.tune.metric != "val_loss":
            return self
        if "train.class_weights" in self.tune.space:
            raise ValueError(
                "tune.metric: val_loss is not comparable between trials that differ in train.class_weights, which "
                "weigh it; compare them by val_log_loss or val_balanced_accuracy"
            )
        if self.data.task != "regression":
            return self
        kinds = {"mse" if loss == "auto" else loss for loss in self._choices("train.loss", self.train.loss)}
        scalings = {
            "standardize" if scaling == "auto" else scaling
            for scaling in self._choices("train.target_transform", self.train.target_transform)
        }
        mixed = len(scalings) > 1 and ("log" in scalings or "huber" in kinds)
        if len(kinds) > 1 or mixed:
            field = "train.loss" if len(kinds) > 1 else "train.target_transform"
            raise ValueError(
                f"tune.metric: val_loss is not comparable between trials that differ in {field}; compare them by "
                "val_rmse, val_mae or val_r2, which are in the target's own unit"
            )
        return self

    @model_validator(mode="after")
    def trials_have_a_number_of_workers(self) -> Self:
        if self.tune is not None and self.train.elastic is not None:
            raise ValueError(
                "tune: trials are compared, so each trains on a fixed number of workers; write it into "
                f"train.num_workers, e.g. {self.train.elastic.max}"
            )
        return self

    @model_validator(mode="after")
    def population_can_go_on(self) -> Self:
        """Trainings of a population are made longer from comparison to comparison."""
        if self.tune is None or not isinstance(self.tune.search, PbtSearch):
            return self
        if self.train.schedule.kind not in ("constant", "step"):
            raise ValueError(
                f"tune.search.kind: pbt finds a schedule itself, and a {self.train.schedule.kind} one must know the "
                "last step; leave train.schedule out"
            )
        if self.train.early_stopping is not None:
            raise ValueError("tune.search.kind: pbt decides which training gives up; leave train.early_stopping out")
        if self.tune.search.every_epochs >= self.train.epochs:
            raise ValueError(
                f"tune.search.every_epochs={self.tune.search.every_epochs} must be below "
                f"train.epochs={self.train.epochs}, or no training is ever compared"
            )
        return self

    def _choices(self, path: str, otherwise: str) -> list[str]:
        """Values that trials take for a field of a few words."""
        values = self.tune.space.get(path) if self.tune is not None else None
        return [str(value) for value in values.choice] if isinstance(values, Choice) else [otherwise]

    @model_validator(mode="after")
    def one_column_for_convolutions(self) -> Self:
        features = self.data.features
        if isinstance(self.model, CnnModel | ResNetModel | AudioCnnModel) and features and len(features) != 1:
            raise ValueError(
                f"model.kind: {self.model.kind} reads one image column, but data.features has {len(features)}"
            )
        return self


def _inside(value: Any, path: list[str], unset: Any) -> Any:
    """What a drawn value writes at a path inside it, or `unset`."""
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return unset
        value = cast("dict[str, Any]", value)[part]
    return value
