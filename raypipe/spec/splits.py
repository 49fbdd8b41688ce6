"""How rows are divided into train, val and test: one variant a way of dividing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.moments import WRITTEN_LIKE, as_text, microseconds


class SplitSpec(Spec):
    """Fields every way of dividing has."""

    leaks: Literal["fail", "warn", "drop"] = "fail"
    """Rows with the same features and target, or of the same group, in two splits: stop, say so, or move those of the
    later split to the bad rows. `fail` only says so where few ways to differ make train's own rows repeat too."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """The splits that must hold rows."""
        raise NotImplementedError

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that decide where a row goes, or that name its group."""
        return ()

    @property
    def sets_aside(self) -> tuple[str, ...]:
        """Those of `reads` that are no features unless `data.features` names them."""
        return self.reads

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns that together name the group of a row; empty: there are no groups."""
        return ()


class FractionSplit(SplitSpec):
    """Splits of a given share of the rows."""

    val_frac: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows for validation; 0 makes no such split."""
    test_frac: float = Field(default=0.2, ge=0, lt=1)
    """Share of the rows for the test."""

    @property
    def wanted(self) -> tuple[str, ...]:
        shares = {"train": 1.0, "val": self.val_frac, "test": self.test_frac}
        return tuple(name for name, share in shares.items() if share > 0)

    @model_validator(mode="after")
    def train_keeps_rows(self) -> Self:
        if self.val_frac + self.test_frac >= 1:
            raise ValueError(
                f"val_frac={self.val_frac} + test_frac={self.test_frac} leaves no rows for train; keep the sum under 1"
            )
        return self


class GroupsSplit(SplitSpec):
    """Groups that are only watched: the split does not look at them."""

    group: list[str] | None = Field(default=None, min_length=1)
    """Columns that together name a group; `leaks` says what happens to one that is in two splits."""

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.group or ())


_NEW_DEFAULTS = (("kind", "hash"), ("leaks", "fail"))


class HashSplit(FractionSplit):
    """By a hash of features and target: a row lands in the same split forever, whatever rows and other columns come or
    go. Copies stay together, unless few different rows (they weigh like under 100) repeat by chance: it is told."""

    kind: Literal["hash"] = "hash"
    key: list[str] | None = Field(default=None, min_length=1)
    """Columns that identify a row (rows with equal keys stay together); unset uses features and target."""
    salt: str = ""
    """Change it to get another division of the same rows."""

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.key or ())

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.key or ())

    @model_serializer(mode="wrap")
    def without_new_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out at their default: fingerprints of older files stay what they were."""
        fields = cast("dict[str, Any]", handler(self))
        return {name: value for name, value in fields.items() if (name, value) not in _NEW_DEFAULTS}


class StratifiedSplit(FractionSplit):
    """Every class in its share in every split; inside a class, by a hash of the row. Copies of a row stay together."""

    kind: Literal["stratified"]
    by: str | None = None
    """Column whose values are the classes; unset: `data.target`."""
    salt: str = ""
    """Change it to get another division of the same rows."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.by,) if self.by is not None else ()

    @property
    def sets_aside(self) -> tuple[str, ...]:
        return ()


class GroupedSplit(FractionSplit):
    """All rows of a group in one split, by a hash of the group; shares are of the rows, as well as groups allow.

    A group with more rows than the larger of val and test is always in train.
    """

    kind: Literal["grouped"]
    group: list[str] = Field(min_length=1)
    """Columns that together name a group, e.g. the patient."""
    salt: str = ""
    """Change it to get another division of the same groups."""

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.group)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.group)


Moment = Annotated[int | float | str, BeforeValidator(as_text)]
"""A number, or an ISO 8601 date or time."""


class TimeSplit(FractionSplit, GroupsSplit):
    """Train before val before test; rows of equal times stay together."""

    kind: Literal["time"]
    column: str
    """Numbers, or ISO 8601 dates or times (to the microsecond, UTC unless they say otherwise)."""
    val_from: Moment | None = None
    """Rows from this time on are val; then the shares are not used."""
    test_from: Moment | None = None
    """Rows from this time on are test; then the shares are not used."""

    @property
    def by_share(self) -> bool:
        """Whether the borders follow from the shares and the rows."""
        return self.val_from is None and self.test_from is None

    @property
    def wanted(self) -> tuple[str, ...]:
        if self.by_share:
            return super().wanted
        borders = {"val": self.val_from, "test": self.test_from}
        return ("train", *(name for name, moment in borders.items() if moment is not None))

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column, *self.groups)

    @model_validator(mode="before")
    @classmethod
    def borders_replace_shares(cls, values: Any) -> Any:
        """With a border, the shares default to 0."""
        if not isinstance(values, Mapping):
            return values
        fields = cast("Mapping[str, Any]", values)
        if fields.get("val_from") is None and fields.get("test_from") is None:
            return fields
        return {"val_frac": 0.0, "test_frac": 0.0, **fields}

    @model_validator(mode="after")
    def borders_are_in_order(self) -> Self:
        if self.by_share:
            return self
        if self.val_frac or self.test_frac:
            raise ValueError("val_from and test_from set the borders; leave val_frac and test_frac out")
        borders = [moment for moment in (self.val_from, self.test_from) if moment is not None]
        if len({isinstance(moment, str) for moment in borders}) > 1:
            raise ValueError(f"val_from={self.val_from} and test_from={self.test_from}: give two numbers or two times")
        places = [_instant(moment) if isinstance(moment, str) else moment for moment in borders]
        # Both are numbers or both are times, see above, which the type checker does not follow.
        if len(places) == 2 and not places[0] < places[1]:  # pyright: ignore[reportOperatorIssue]
            raise ValueError(f"val_from={self.val_from} must be before test_from={self.test_from}")
        return self


def _instant(text: str) -> int:
    """The time a text names, in microseconds since 1970.

    Raises:
        ValueError: it names none.
    """
    moment = microseconds(text)
    if moment is None:
        raise ValueError(f"{text[:40]!r} is no time; write it like {WRITTEN_LIKE}")
    return moment


class ColumnSplit(GroupsSplit):
    """A column says for each row where it goes."""

    kind: Literal["column"]
    column: str
    """Column that says which split a row belongs to."""
    train: list[str | int | bool] = Field(default=["train"], min_length=1)
    """Values of the column that mean train."""
    val: list[str | int | bool] = ["val"]
    """Values that mean val; []: there is no val split."""
    test: list[str | int | bool] = ["test"]
    """Values that mean test; []: there is no test split."""

    @property
    def words(self) -> dict[str, list[str | int | bool]]:
        """Split -> the values that mean it."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(name for name, words in self.words.items() if words)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column, *self.groups)

    @model_validator(mode="after")
    def a_word_means_one_split(self) -> Self:
        seen: dict[tuple[str, Any], str] = {}
        for name, words in self.words.items():
            for word in words:
                kind = "text" if isinstance(word, str) else "truth" if isinstance(word, bool) else "number"
                other = seen.setdefault((kind, word), name)
                if other != name:
                    raise ValueError(f"the value {word!r} means both {other} and {name}; keep it in one")
        return self


class DirectoriesSplit(GroupsSplit):
    """Ready-made: a folder a split.

    With `source.path: dataset` rows come from dataset/train, dataset/val and dataset/test. Where the name of the split
    is elsewhere in the path, `{split}` marks it: `path: "dataset/{split}/*.csv"`, `images: "{split}-images.gz"`.
    """

    kind: Literal["directories"]
    train: str = Field(default="train", min_length=1)
    """The folder of train."""
    val: str | None = Field(default="val", min_length=1)
    """The folder of val; null: there is no val split."""
    test: str | None = Field(default="test", min_length=1)
    """The folder of test; null: there is no test split."""

    @property
    def folders(self) -> dict[str, str]:
        """Split -> folder, of those there are."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {split: folder for split, folder in named.items() if folder is not None}

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(self.folders)

    @property
    def reads(self) -> tuple[str, ...]:
        return self.groups

    @model_validator(mode="after")
    def a_folder_is_one_split(self) -> Self:
        if len(set(self.folders.values())) < len(self.folders):
            raise ValueError(f"two splits name the same folder: {self.folders}; a folder is one split")
        return self


def _default_kind(value: Any) -> Any:
    """A section without `kind` is a hash split."""
    if not isinstance(value, Mapping) or "kind" in value:
        return cast("Any", value)
    return {"kind": "hash", **cast("Mapping[str, Any]", value)}


SplitRule = Annotated[
    Annotated[
        HashSplit | StratifiedSplit | GroupedSplit | TimeSplit | ColumnSplit | DirectoriesSplit,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_default_kind),
]
