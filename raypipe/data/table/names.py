"""Names of columns: those of raypipe's own, and those that are asked for, missing, or cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from raypipe.data.table import normal_form
from raypipe.data.table.marks import BAD
from raypipe.errors import DataError, did_you_mean
from raypipe.spec.sources import SourceSpec

ROW_ID = "__row_id"
"""The hash of features and target: what makes a row what it is."""

SEEN_ID = "__seen_id"
"""The hash of every column that the spec reads: it tells rows apart whose features and target are equal."""

CODE, ORDER, STRATUM, GROUP = KEY_COLUMNS = ("__split", "__split_order", "__split_stratum", "__split_group")


class MissingColumn(DataError):
    """A named column is not there.

    Args:
        bare: the message without the names of other columns: where a header line is missing they are values.
    """

    def __init__(self, message: str, hint: str = "", bare: str = "") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, bare)
        self.bare = bare


def needed(source: SourceSpec) -> list[str] | None:
    """Columns that must be read: those to keep and those that choose rows; None is all."""
    if source.columns is None:
        return None
    return list(dict.fromkeys([*source.columns, *(condition.column for condition in source.where)]))


def require(names: Sequence[str], there: Sequence[str], file: str) -> None:
    """Raise MissingColumn unless all `names` are `there`; tells all that are not."""
    known = set(there)
    missing = [name for name in dict.fromkeys(names) if name not in known]
    if not missing:
        return
    others = [column for column in there if column != BAD]
    bare = "; ".join(f"column '{name}' is not there" for name in missing)
    what = "; ".join(f"column '{name}' {_why_not_there(name, others)}" for name in missing)
    raise MissingColumn(
        f"{file}: {what}; the columns are {others[:50]}",
        "correct the name in data.features, data.target, data.split.key, data.masking, or the columns, where or dtypes "
        "of data.source",
        f"{file}: {bare}; it has {len(others)} columns",
    )


def _why_not_there(name: str, others: Sequence[str]) -> str:
    fields = [other for other in others if other.startswith(f"{name}.")]
    return f"is no value but has fields: {fields[:10]}" if fields else f"is not there{did_you_mean(name, others)}"


def unusable_names(names: Sequence[str]) -> dict[str, str]:
    """The columns that a file has twice, or whose name is one of ours -> which of the two."""
    counts = Counter(names)
    twice = {name: "is there twice" for name in counts if counts[name] > 1}
    return twice | ({BAD: "is a name that raypipe uses itself"} if BAD in counts else {})


def unusable_columns(schema: pa.Schema) -> dict[str, str]:
    """The columns of a file that cannot be read -> what is wrong with them."""
    return unusable_types(schema) | unusable_names(schema.names)


def unusable_types(schema: pa.Schema) -> dict[str, str]:
    return {name: f"has {what}" for name, what in normal_form.refused_types(schema).items()}


def usable(
    names: Sequence[str] | None, there: Sequence[str], unusable: Mapping[str, str], source: SourceSpec, file: str
) -> list[str]:
    """The columns to read: those named, or all that can be.

    Args:
        names: that are asked for; None is all.
    Raises:
        MissingColumn, ColumnRefused: one that is asked for is not there, or cannot be read.
    """
    asked = [*(names or ()), *(condition.column for condition in source.where)]
    require(asked, there, file)
    refuse_unusable(asked, unusable, file)
    chosen = [name for name in there if name not in unusable] if names is None else list(names)
    if not chosen:
        refuse_unusable(there, unusable, file)
    return chosen


def refuse_unusable(names: Iterable[str], unusable: Mapping[str, str], file: str) -> None:
    """Raise ColumnRefused when columns that are needed cannot be read; tells all of them."""
    refused = {name: unusable[name] for name in names if name in unusable}
    if refused:
        raise normal_form.refused(refused, file)


def refuse_names(names: Sequence[str], file: str) -> None:
    """Raise ColumnRefused when a file has a column twice, or one with a name of ours."""
    refuse_unusable(names, unusable_names(names), file)
