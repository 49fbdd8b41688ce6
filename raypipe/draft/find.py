"""Which kind of data a path names: a table, pictures, recordings or a text; by the names of its files alone."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from raypipe.data.sources.files import find
from raypipe.errors import DataError
from raypipe.spec.sources import FileSourceSpec, Source

What = Literal["table", "pictures", "recordings", "text"]

KINDS: dict[str, What] = {
    "text_windows": "text",
    "csv": "table",
    "parquet": "table",
    "jsonl": "table",
    "arrow": "table",
    "images": "pictures",
    "sound": "recordings",
}
"""Format -> what its files hold. A suffix that two formats have is that of the first: `.txt` is a text."""


@lru_cache(maxsize=1)
def suffixes() -> dict[str, tuple[str, ...]]:
    """Format -> the endings of its files' names."""
    variants: tuple[type[FileSourceSpec], ...] = get_args(get_args(Source)[0])
    return {name: next(v.suffixes for v in variants if name in _names(v)) for name in KINDS}


def _names(variant: type[Any]) -> tuple[str, ...]:
    return get_args(variant.model_fields["format"].annotation)


class Data(NamedTuple):
    """What a path names.

    Attributes:
        others: format -> files of it that lie beside those of `format`.
    """

    what: What
    format: str
    others: dict[str, int]


def find_data(path: str) -> Data:
    """The files of the format that most files below a path have.

    Args:
        path: a file, folder or glob, local, `s3://` or `https://`.
    Raises:
        DataError: nothing is there, or nothing that a pipeline file could be written for.
    """
    known_suffixes = tuple(dict.fromkeys(suffix for some in suffixes().values() for suffix in some))
    names = [file.uri for file in find(path, ".", known_suffixes)]
    formats = Counter(known for name in names if (known := _format_of(name)) is not None)
    if not formats:
        raise DataError(
            f"{path}: its name does not tell what it holds; known are {', '.join(known_suffixes)}",
            "rename the file, or write the pipeline file yourself: raypipe init DIR --template NAME",
        )
    named = max(formats, key=lambda each: (formats[each], -list(KINDS).index(each)))
    del formats[named]
    return Data(KINDS[named], named, dict(sorted(formats.items())))


def _format_of(name: str) -> str | None:
    lower = name.lower()
    return next((each for each, endings in suffixes().items() if lower.endswith(endings)), None)
