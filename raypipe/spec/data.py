"""Where rows come from, what they must hold, how they are split and transformed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.addresses import check_address
from raypipe.spec.base import Spec, fingerprint
from raypipe.spec.expectations import Expectation
from raypipe.spec.language import TASK, language_fields
from raypipe.spec.masking import MaskSpec, refuse_taught
from raypipe.spec.named_columns import named_columns, refuse_unread
from raypipe.spec.sequences import TASK as SEQUENCES
from raypipe.spec.sequences import TargetTokens, sequence_fields
from raypipe.spec.sources import FolderSource, Source
from raypipe.spec.splits import ColumnSplit, DirectoriesSplit, FractionSplit, HashSplit, SplitRule, TimeSplit
from raypipe.spec.transforms import Transform, Unknown, with_unknown

Task = Literal["classification", "multi_label", "regression", "language_model", "sequence_to_sequence"]

INDEX_NAME = re.compile(r"|Unnamed: \d+(\.\d+)?|__index_level_\d+__")
"""Names of columns that hold no data but the number or name of a row, as tools write their index beside the data: a
CSV header cell that is empty, what pandas makes of one when it reads it again, and its index in Parquet and Arrow."""


LATER_FIELDS = ("weight", "label_sets", "target_tokens")
"""Fields that came after datasets were kept: None is what all of those did, and is left out of `shaping`, or an
unchanged file would no longer find its version."""


class LabelSetsSpec(Spec):
    """How several labels of one row are written, and when the model gives one."""

    separator: str | None = Field(default=None, min_length=1, max_length=8)
    """Between the labels of a text, e.g. `;`; blanks around a label are no part of it. Lists of texts need none."""
    missing: Literal["error", "no_label"] = "error"
    """A row without a value: a bad row, or one that has no label (an empty cell of CSV is no value)."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A label is given where its probability is at least this."""


class BadRowsSpec(Spec):
    """What happens to rows that break the schema (null or NaN without `impute`, infinite, wrong shape, no target)."""

    max_frac: float = Field(default=0.0, ge=0, le=1)
    """Bad rows up to this share of all rows are written aside with the reason; more stop the run. 0 allows none."""


class PolicySpec(Spec):
    """What happens to values and columns that train does not know, in training, batch inference and serving alike.

    A missing value needs no setting: it is refused everywhere unless an `impute` transform fills it, and a feature that
    is not given at all is always refused by name.
    """

    unknown_categories: Unknown = "error"
    """A category that train has not: `error` refuses the row, `ignore` encodes it as none of the known ones. The
    `unknown` of a transform goes before it."""
    extra_columns: Literal["ignore", "error"] = "ignore"
    """Columns of the input that the model does not read: `ignore` leaves them out (batch inference still writes them
    beside the answers), `error` refuses the input by the column's name."""


class SourcePart(NamedTuple):
    """Rows that are read together."""

    field: str
    """Where the file names them: source, val_source or test_source."""
    source: Source
    split: str | None
    """The split all its rows belong to; None: `data.split` decides row by row."""


class DataSpec(Spec):
    """One dataset: files in, an immutable dataset version out."""

    root: str | None = None
    """Folder, `s3://` or `https://` prefix that relative paths start from; unset: the pipeline file's folder."""

    source: Source
    """Where the rows come from."""
    val_source: Source | None = None
    """A ready-made val split; then `split` must give none."""
    test_source: Source | None = None
    """A ready-made test split; then `split` must give none."""

    target: str | Annotated[list[str], Field(min_length=2)]
    """The column to predict, or with `task: regression` several columns of numbers, with `task: multi_label` several of
    true/false, one a label; may be left out with `task: language_model`, whose text it is."""
    task: Task = "classification"
    """Whether the target is a class, a set of labels (`multi_label`) or a number; or `language_model`: the next
    character of a text, for every one. Its source is `format: text_windows`; target, features and transforms follow
    from it, and so does a split without `kind`: contiguous parts of each file. Or `sequence_to_sequence`: the target is
    a text, written token by token (`target_tokens`) for another one, the column of a `tokens` transform."""
    target_tokens: TargetTokens | None = None
    """With `task: sequence_to_sequence`: how the target's texts are cut into tokens."""
    label_sets: LabelSetsSpec | None = None
    """For `task: multi_label` alone. A text with several labels needs `{separator: ";"}`."""
    weight: str | None = None
    """A column of numbers from 0 up: how much each row counts, in losses and metrics alike (a row of 2 as two rows of 1
    would; one of 0 not at all). It is no feature, and nobody who asks the model has to give it."""
    features: list[str] | None = Field(default=None, min_length=1)
    """Columns the model sees, in this order; unset: of pictures and sounds themselves alone; else all but target and
    weight, masked columns, those by which the split knows a row (key, group, time or word), and those of row numbers
    (without a name, or `__index_level_0__`), in the order of the first file (as `source` lists them), then what later
    files add."""

    masking: list[MaskSpec] = []
    """Columns with personal data: replaced or removed before anything else sees the rows."""
    split: SplitRule = HashSplit()
    """How rows are divided into train, val and test."""
    transforms: list[Transform] = []
    """Applied in this order; fitted on the train split only."""
    policy: PolicySpec = PolicySpec()
    """What happens to what train does not know."""
    expectations: list[Expectation] = []
    """What rows and columns must hold beyond their types, and what happens where they do not."""
    bad_rows: BadRowsSpec = BadRowsSpec()
    """What happens to rows that cannot be read or break the schema."""
    rows_per_shard: int = Field(default=100_000, ge=1)
    """At most about how many rows, over all splits, are stored together, one shard a split; at least half as many, and
    fewer where they would take more than about 96 MiB. More where a split would have more than 2,048 shards."""
    read_parallelism: int | None = Field(default=None, ge=1)
    """Blocks Ray Data reads into; unset lets Ray choose. Never changes the result."""

    def fingerprint(self, *also: Any, exclude: set[str] | None = None) -> str:
        """See Spec. Fields that came later count where they say something: versions that were made without stay."""
        fields = self.model_dump(mode="json", exclude=exclude)
        if fields.get("target_tokens") is None:
            fields.pop("target_tokens", None)
        for transform in fields.get("transforms", ()):
            if not transform.get("refuse", True):
                del transform["refuse"]
        return fingerprint(fields, *also)

    def parts(self) -> list[SourcePart]:
        """Everything that is read, in order."""
        if isinstance(self.split, DirectoriesSplit):
            named = self.split.folders.items()
            found = [SourcePart("source", self.source.in_split(folder), name) for name, folder in named]
        else:
            found = [SourcePart("source", self.source, None)]
        for name, source in (("val", self.val_source), ("test", self.test_source)):
            if source is not None:
                found.append(SourcePart(f"{name}_source", source, name))
        return found

    @property
    def wanted_splits(self) -> tuple[str, ...]:
        """The splits that must hold rows, in order."""
        ready_made = {part.split for part in self.parts()}
        return tuple(name for name in ("train", "val", "test") if name in ready_made or name in self.split.wanted)

    @property
    def masked(self) -> dict[str, MaskSpec]:
        """Column -> what happens to it."""
        return {name: mask for mask in self.masking for name in mask.columns}

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def learned_transforms(self) -> list[Transform]:
        """All that is fitted on train: `transforms`, and what makes tokens of the target."""
        of_target = [self.target_tokens.of(name) for name in self.targets] if self.target_tokens else []
        return [*self.transforms, *of_target]

    @property
    def stored_label_sets(self) -> LabelSetsSpec | None:
        """How the labels of a row are written and given; None for other tasks."""
        return (self.label_sets or LabelSetsSpec()) if self.task == "multi_label" else None

    @property
    def stratify_by(self) -> str | None:
        """The column whose values are the classes of a stratified split."""
        return (self.split.by or self.targets[0]) if self.split.kind == "stratified" else None

    def shaping(self) -> dict[str, Any]:
        """The fields that decide what a version holds, JSON-able: what its name, a plan and a search compare."""
        unset = {name for name in LATER_FIELDS if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude={"root", "read_parallelism", *unset})

    @property
    def watched_groups(self) -> tuple[str, ...]:
        """Columns that name a group, where one could be in two splits; the splits by hash and by group keep theirs
        together, unless val or test come from files of their own."""
        together = self.split.kind in ("hash", "grouped") and self.val_source is None and self.test_source is None
        return () if together else self.split.groups

    def index_columns(self, there: Iterable[str]) -> list[str]:
        """Columns that by their name only number the rows, and that nothing in this spec names."""
        named = {*self.split.sets_aside, *(name for part in self.parts() for name in part.source.columns or ())}
        named.update(name for names in named_columns(self).values() for name in names)
        return [name for name in there if INDEX_NAME.fullmatch(name) and name not in named]

    def feature_names(self, there: Iterable[str]) -> list[str]:
        """The columns the model sees, of those there are after masking."""
        if self.features is not None:
            return list(self.features)
        aside = {*self.targets, self.weight, *self.split.sets_aside, *self.masked}
        if isinstance(self.source, FolderSource):  # what is known of a file beside it is no part of it
            there = [name for name in there if name == self.source.decoded]
        return [name for name in there if name not in aside]

    @model_validator(mode="before")
    @classmethod
    def language_model_follows_from_its_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cast("dict[str, Any]", values)
        return language_fields(fields) if fields.get("task") == TASK else fields

    @model_validator(mode="before")
    @classmethod
    def sequences_follow_from_their_tokens(cls, values: Any) -> Any:
        return sequence_fields(cast("dict[str, Any]", values)) if isinstance(values, dict) else values

    @model_validator(mode="before")
    @classmethod
    def policy_reaches_transforms(cls, values: Any) -> Any:
        """A transform that does not say what an unknown category is follows `policy`."""
        if not isinstance(values, dict):
            return values
        fields = cast("dict[str, Any]", values)
        policy: Any = fields.get("policy")
        found: Any = policy.unknown_categories if isinstance(policy, PolicySpec) else None
        if isinstance(policy, dict):
            found = cast("dict[str, Any]", policy).get("unknown_categories")
        transforms: Any = fields.get("transforms")
        if found is None or not isinstance(transforms, list):
            return fields
        return {**fields, "transforms": [with_unknown(t, found) for t in cast("list[Any]", transforms)]}

    @model_validator(mode="before")
    @classmethod
    def ready_made_splits(cls, values: Any) -> Any:
        """With `val_source` or `test_source`, the share of that split defaults to 0."""
        if not isinstance(values, dict):
            return values
        fields = cast("dict[str, Any]", values)
        split: Any = fields.get("split") or {}
        if not isinstance(split, dict) or cast("dict[str, Any]", split).get("kind") in ("column", "directories"):
            return fields
        none = {f"{name}_frac": 0.0 for name in ("val", "test") if fields.get(f"{name}_source") is not None}
        return {**fields, "split": {**none, **cast("dict[str, Any]", split)}} if none else fields

    @model_validator(mode="after")
    def no_secret_in_an_address(self) -> Self:
        if self.root is not None:
            check_address(self.root)
            for part in self.parts():
                for place in part.source.places():
                    check_address(place if "://" in place else f"{self.root}/{place}")
        return self

    @model_validator(mode="after")
    def transforms_leave_the_target(self) -> Self:
        for transform in self.transforms if self.task != TASK else ():
            for target in set(self.targets) & set(transform.columns):
                raise ValueError(
                    f"transforms ({transform.kind}) names the target '{target}', but transforms change features "
                    f"alone; {_instead_of(transform.kind, self.task)}"
                )
        return self

    @model_validator(mode="after")
    def features_are_not_the_target(self) -> Self:
        if self.features is None or self.task == TASK:
            return self
        for target in set(self.targets) & set(self.features):
            raise ValueError(f"the target '{target}' must not be one of the features")
        stray = sorted({c for t in self.transforms for c in t.columns} - set(self.features))
        if stray:
            raise ValueError(f"transforms name {stray}, which are not among the features {self.features}")
        return self

    @model_validator(mode="after")
    def targets_fit_the_task(self) -> Self:
        if self.label_sets is not None and self.task != "multi_label":
            raise ValueError(
                f"label_sets: task: {self.task} has no sets of labels; set task: multi_label or leave it out"
            )
        if isinstance(self.target, str):
            return self
        if self.task not in ("regression", "multi_label"):
            raise ValueError(
                f"target names {len(self.target)} columns, but task: {self.task} has one; several numbers need task: "
                "regression, several columns of true/false task: multi_label"
            )
        if len(set(self.target)) < len(self.target):
            raise ValueError(f"target names a column twice: {self.target}")
        if self.label_sets is not None and self.label_sets.model_fields_set & {"separator", "missing"}:
            raise ValueError(
                "label_sets: columns of true/false, one a label, need no separator, and a value in each row"
            )
        return self

    @model_validator(mode="after")
    def weight_is_no_feature(self) -> Self:
        if self.weight is None:
            return self
        if self.task == TASK:
            raise ValueError(
                "weight: a language model reads windows of a text, which have no further column; leave it out"
            )
        if self.weight in self.targets:
            raise ValueError(f"weight: '{self.weight}' is the target; name another column")
        if self.weight in (self.features or ()) or any(self.weight in each.columns for each in self.transforms):
            raise ValueError(
                f"weight: '{self.weight}' says how much a row counts and is no feature; leave it out of features and "
                "transforms, or give the model a copy of the column under another name"
            )
        return self

    @model_validator(mode="after")
    def each_split_has_one_source(self) -> Self:
        for name, source in (("val", self.val_source), ("test", self.test_source)):
            if source is None or name not in self.split.wanted:
                continue
            if isinstance(self.split, TimeSplit) and not self.split.by_share:
                also, none = f"split.{name}_from", "null"
            elif isinstance(self.split, FractionSplit):
                also, none = f"split.{name}_frac={getattr(self.split, f'{name}_frac')}", "0"
            else:
                also = f"split.{name} of kind: {self.split.kind}"
                none = "[]" if isinstance(self.split, ColumnSplit) else "null"
            raise ValueError(f"{name}_source is the {name} split, so {also} must be {none} or left out")
        return self

    @model_validator(mode="after")
    def split_fits_the_columns(self) -> Self:
        split = self.split
        if isinstance(split, DirectoriesSplit):
            places = self.source.places()
            if not places:
                raise ValueError(
                    f"split.kind: directories needs files, but source.format: {self.source.format} has none"
                )
            for place in places:
                if "{split}" not in place and any(sign in place for sign in "*?["):
                    raise ValueError(
                        f"split.kind: directories: '{place}' matches files, so mark where the name of the split is, "
                        "e.g. 'dataset/{split}/*.csv'"
                    )
        if split.kind == "stratified" and self.stratify_by in self.targets and self.task != "classification":
            raise ValueError(
                f"split.kind: stratified needs classes, but the target of task: {self.task} has none; name a column in "
                "split.by, or use kind: hash"
            )
        if isinstance(split, TimeSplit | ColumnSplit) and split.column in self.targets:
            raise ValueError(f"split.column must not be the target '{split.column}'")
        if isinstance(split, ColumnSplit) and split.column in (self.features or ()):
            raise ValueError(f"'{split.column}' says which split a row is in, so it must not be a feature")
        return self

    @model_validator(mode="after")
    def sources_read_what_is_named(self) -> Self:
        refuse_unread(self)
        return self

    @model_validator(mode="after")
    def masked_columns_teach_nothing(self) -> Self:
        refuse_taught(self)
        return self


def _instead_of(kind: str, task: Task) -> str:
    """What to write where a transform names the target."""
    if kind == "impute":
        return "a row without a target teaches nothing and is a bad row, see data.bad_rows.max_frac"
    if task == SEQUENCES:
        return "its texts become tokens by data.target_tokens, so leave it out"
    if task == "multi_label":
        return "its labels are taken as they are, so leave it out"
    if task == "classification":
        return "its values are the classes as they are, so leave it out (numbers to predict need data.task: regression)"
    if kind == "log":
        return "to train on its logarithm set train.target_transform: log"
    if kind in ("scale", "standardize", "min_max", "robust", "normalize"):
        return "it is standardized in training by itself (train.target_transform: standardize), so leave it out"
    return "what can be done to the target is train.target_transform: none, standardize or log"
