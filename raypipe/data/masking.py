"""Personal data is replaced before a row is looked at, kept, or shown in a message.

`Masking.apply` is the first thing that happens to a block; `guard` keeps what a reader found out of messages.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import pyarrow as pa

from raypipe.data.table import columns
from raypipe.data.table.marks import BAD
from raypipe.data.table.names import MissingColumn, require
from raypipe.data.table.normal_form import ColumnRefused
from raypipe.data.table.one_type import MixedTypes
from raypipe.errors import DataError, SourceChanged, SpecError, StoreError
from raypipe.spec.masking import MaskSpec

REDACTED = "[redacted]"

MIN_KEY_BYTES = 32

_LOWER, _UPPER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"


class MaskKeys:
    """The keys of keyed masks, by environment variable; may travel in a task, and never shows a key."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def __getitem__(self, name: str) -> bytes:
        return self._keys[name]

    def __repr__(self) -> str:
        return f"MaskKeys({', '.join(sorted(self._keys))})"

    def fingerprint(self) -> str:
        """Changes when a key does, and does not tell it: 16 hex digits; empty without keys."""
        marks = [name.encode() + _hmac(key, b"raypipe key fingerprint") for name, key in sorted(self._keys.items())]
        return hashlib.sha256(b"".join(marks)).hexdigest()[:16] if marks else ""


class Masking:
    """The masks of a spec with their keys, as reading applies them; there may be none."""

    def __init__(self, masks: Sequence[MaskSpec] = (), keys: MaskKeys | None = None) -> None:
        self._method = {name: mask for mask in masks for name in mask.columns}
        self._keys = keys or MaskKeys({})

    @property
    def names(self) -> tuple[str, ...]:
        """All masked columns."""
        return tuple(self._method)

    def apply(self, block: pa.Table, file: str) -> pa.Table:
        """The block without the personal data.

        Args:
            block: normalised, see normal_form.py.
            file: where it was read from, for messages.
        Returns:
            The same rows; masked columns hold text, and missing values (null, NaN) are null.
        Raises:
            MissingColumn, ColumnRefused: a column is not there, or holds what its method cannot mask.
        """
        if not self._method:
            return block
        require(list(self._method), block.column_names, f"{file} (data.masking)")
        kept: dict[str, pa.ChunkedArray | pa.Array] = {}
        for name, column in columns.by_name(block).items():
            spec = self._method.get(name)
            if name == BAD:
                kept[name] = _without_quotes(column)
            elif spec is None:
                kept[name] = column
            elif spec.method != "drop":
                kept[name] = _masked(column, name, spec, self._keys, file)
        table = pa.table(kept) if kept else block.select([])
        return table.replace_schema_metadata(block.schema.metadata)

    @contextmanager
    def guard(self, file: str) -> Iterator[None]:
        """Reading goes on inside; what a reader says went wrong may quote the file, so with masks it is not passed on.

        Raises:
            DataError: instead of any error but those that name columns, types and addresses only.
            MissingColumn: with masks it does not name the columns that are there.
        """
        try:
            yield
        except (StoreError, SourceChanged, MixedTypes, ColumnRefused):
            raise
        except MissingColumn as error:
            if not self._method:
                raise
            raise MissingColumn(error.bare, error.hint) from None
        except Exception:
            if not self._method:
                raise
            raise DataError(
                f"{file} cannot be read; the details are withheld, as they might show values of masked columns "
                f"({', '.join(self._method)})",
                "read the file by itself, without data.masking, where its values may be seen",
            ) from None


UNMASKED = Masking()


def read_keys(masks: Sequence[MaskSpec], environ: Mapping[str, str] = os.environ) -> MaskKeys:
    """The keys that the masks name.

    Raises:
        SpecError: a variable is not set, or its key is short; names the variable.
    """
    key_of: dict[str, bytes] = {}
    for mask in masks:
        if mask.key_env is None:
            continue
        key = environ.get(mask.key_env, "").encode(errors="surrogateescape")
        if len(key) < MIN_KEY_BYTES:
            what = f"holds {len(key)} bytes" if key else "is not set"
            raise SpecError(
                f"data.masking: environment variable {mask.key_env} {what}; a key has at least {MIN_KEY_BYTES} bytes",
                f"export {mask.key_env}=$(openssl rand -hex 32), and keep it: another key gives other values",
            )
        key_of[mask.key_env] = key
    return MaskKeys(key_of)


def _masked(column: pa.ChunkedArray, name: str, spec: MaskSpec, keys: MaskKeys, file: str) -> pa.Array:
    missing = _missing(column)
    if spec.method == "redact":
        return pa.array(np.full(len(column), REDACTED, object), pa.string(), mask=missing)
    kind = columns.kind(column.type)
    if kind.form:
        raise ColumnRefused(
            f"{file}: column '{name}' holds {kind}, which method: {spec.method} cannot mask; it masks single values",
            "set method: drop or redact for it in data.masking",
        )
    key = keys[str(spec.key_env)]
    encoded = column.combine_chunks().dictionary_encode()
    change = _hashed if spec.method == "hash" else _tokenized
    distinct = [None if text is None else change(text, key) for text in map(_text, encoded.dictionary.to_pylist())]
    index = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    table = pa.array([*distinct, None], pa.string())
    return table.take(pa.array(np.where(missing, len(distinct), index)))


def _without_quotes(reasons: pa.ChunkedArray) -> pa.Array:
    """Why rows could not be read may quote them."""
    withheld_reasons = np.full(len(reasons), "the row could not be read (details withheld: data.masking)", object)
    return pa.array(withheld_reasons, pa.string(), mask=_missing(reasons))


def _missing(column: pa.ChunkedArray) -> np.ndarray:
    if isinstance(column.type, pa.BaseExtensionType):
        return np.zeros(len(column), bool)
    return column.is_null(nan_is_null=True).to_numpy()


def _text(value: object) -> str | None:
    """A value as the methods read it; whole numbers alike whatever their type, as in row ids."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _hashed(text: str, key: bytes) -> str:
    return _hmac(key, text.encode()).hex()


def _tokenized(text: str, key: bytes) -> str:
    """Other letters for letters, in their case, and other digits for digits; the rest stays."""
    shape = [_alphabet(sign) for sign in text]
    attempt = 0
    while True:
        draw = _draws(text, key, attempt, len(text))
        token = "".join(a[d % len(a)] if a else sign for a, d, sign in zip(shape, draw, text, strict=True))
        if token != text or not any(shape):
            return token
        attempt += 1  # a short text may be drawn for itself


@cache
def _alphabet(sign: str) -> str:
    kind = unicodedata.category(sign)
    if kind[0] == "N":
        return _DIGITS
    if kind[0] not in "LM":
        return ""
    return _UPPER if kind in ("Lu", "Lt") else _LOWER


def _draws(text: str, key: bytes, attempt: int, num: int) -> list[int]:
    """Numbers below 2**32 that follow from key and text."""
    data = b""
    block = 0
    while len(data) < 4 * num:
        data += _hmac(key, f"tokenize {attempt} {block} ".encode() + text.encode())
        block += 1
    return np.frombuffer(data[: 4 * num], "<u4").tolist()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
