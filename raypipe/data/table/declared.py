"""Text as values of a type that is declared or was recognised, and which texts are none.  n rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table import spans

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

_WHOLE = r"^-?[0-9]{1,18}$"
"""Whole numbers that fit 64 bits for certain, so that one cast reads them all."""

_MAY_BE = {
    "b": r"^(?i:true|false|0|1)$",
    "u": r"^0*[0-9]{1,20}$|^0[xX][0-9a-fA-F]{1,16}$",
    "i": r"^-?0*[0-9]{1,20}$|^0[xX][0-9a-fA-F]{1,16}$",
    "f": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^(?i:[+-]?(inf|infinity|nan(\(.*\))?))$",
}
"""What Arrow reads as true/false, whole numbers without and with a sign, other numbers; and a little more."""

TRUE_FALSE = {
    "true": "false", "t": "f", "yes": "no", "y": "n", "on": "off", "1": "0", "ja": "nein", "j": "n", "oui": "non",
    "o": "n", "si": "no", "sí": "no", "s": "n", "vrai": "faux", "wahr": "falsch", "sim": "não", "verdadero": "falso",
    "vero": "falso", "tak": "nie", "да": "нет", "истина": "ложь",
}  # fmt: skip
"""Texts for true, in small letters -> the one for false that stands beside it."""

TEXT_DTYPES = {"bool": "true and false", "time": "times of day", "duration": "durations"}
"""Words of `dtypes` that texts may be recognised as -> what such texts are called."""

MAX_SPELLINGS = 20
"""Of true and false in one column: Yes, YES, yes, with blanks and so on."""

NUM_FIRST = 20
"""Texts that are tried before all are."""

_PAIRS = frozenset(frozenset((true, false)) for true, false in TRUE_FALSE.items())

BLANKS = "\\s\u00a0\u202f\u2009"
"""Any kind of blank, for a set of a regular expression."""

GROUPS = {" ": f"[{BLANKS}]", "'": "['\u2019]", ".": r"\.", ",": ",", "_": "_"}
"""What stands between groups of three digits -> the regular expression of it."""


class Written(NamedTuple):
    """How the numbers of a column are written."""

    decimal_point: str = "."
    thousands: str | None = None
    """None: digits are not grouped."""
    sign: str | None = None
    """What stands with each number; None: nothing does."""


PLAIN = Written()


def written_as(
    name: str, decimal_point: str | Mapping[str, str] | None, thousands: str | None, signs: Mapping[str, str]
) -> Written:
    """How the numbers of a column are written, in the words of a CSV source's fields."""
    point = decimal_point.get(name, ".") if isinstance(decimal_point, Mapping) else decimal_point or "."
    return Written(point, None if thousands == point else thousands, signs.get(name))


def kept_as(dtype: str) -> pa.DataType:
    """The Arrow type of what a word of `dtypes` declares: times and durations are seconds."""
    return pa.type_for_alias("float64" if dtype in spans.READERS else dtype)


def as_type(written: pa.Array, dtype: str, how: Written = PLAIN) -> tuple[pa.Array, list[int]]:
    """Text as values of a type, and the rows where that cannot be; they are null."""
    if dtype == "string":
        return written, []
    text = pc.utf8_trim(written, " \t\r\n\v\f\u00a0\u202f\u2009")
    if dtype in spans.READERS:
        return _by_value(text, spans.READERS[dtype])
    wanted = pa.type_for_alias(dtype)
    if dtype == "bool":
        plain = _true_or_false(text)
    else:
        plain = text if how == PLAIN else plain_numbers(text, how)
    try:
        values = plain.cast(wanted)
        is_lost = pc.and_(plain.is_null(), text.is_valid())
        return values, np.flatnonzero(is_lost.to_numpy(zero_copy_only=False)).tolist()
    except pa.ArrowInvalid:
        pass
    is_misfit = _misfits(plain, wanted) | pc.and_(plain.is_null(), text.is_valid()).to_numpy(zero_copy_only=False)
    values = pc.if_else(pa.array(is_misfit), pa.scalar(None, pa.string()), plain).cast(wanted)
    return values, np.flatnonzero(is_misfit).tolist()


def dtype_of(texts: pa.Array) -> str | None:
    """What all of some texts, which are no numbers, can be, one of TEXT_DTYPES; None where that is nothing.

    Args:
        texts: distinct ones.
    """
    first = texts[:NUM_FIRST]
    if not len(texts):
        return None
    if len(texts) <= MAX_SPELLINGS and frozenset(text.lower().strip() for text in texts.to_pylist()) in _PAIRS:
        return "bool"
    one = texts[0].as_py().strip()  # most columns are told by it, at hardly any cost
    likely = [dtype for dtype, read in spans.READERS.items() if read(one) is not None]
    fitting = (dtype for dtype in likely if not as_type(first, dtype)[1])
    return next((dtype for dtype in fitting if not as_type(texts, dtype)[1]), None)


def number_pattern(how: Written) -> str:
    """The regular expression of a number that is written so, without its sign."""
    point = re.escape(how.decimal_point)
    plain = rf"(?:[0-9]+(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    if how.thousands is None:
        return plain
    group = GROUPS[how.thousands]
    return rf"(?:{plain}|[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+(?:{point}[0-9]*)?)"


def plain_numbers(text: pa.Array, how: Written) -> pa.Array:
    """Trimmed text of numbers as Arrow reads them; null where it is no number that is written so.

    A negative one may stand in parentheses, as bookkeepers write it, and its minus before or behind its sign.
    """
    number = number_pattern(how)
    minus = "[+\u2212-]?"
    if how.sign is None:
        pattern = rf"^(?:{minus}{number}|\({number}\))$"
    else:
        sign = re.escape(how.sign)
        blank = f"[{BLANKS}]*"
        pattern = (
            rf"^(?:{minus}{blank}{sign}{blank}{number}|{sign}{blank}{minus}{blank}{number}|{minus}{number}{blank}{sign}"
            rf"|\({sign}{blank}{number}\)|\({number}{blank}{sign}\))$"
        )
    is_number = pc.match_substring_regex(text, pattern)
    if not pc.any(is_number).as_py():
        return pa.nulls(len(text), pa.string())
    if how.sign is not None:
        text = pc.replace_substring(text, how.sign, "")
    text = pc.replace_substring_regex(text, r"^\((.*)\)$", r"-\1")
    if how.thousands is not None:
        text = pc.replace_substring_regex(text, GROUPS[how.thousands], "")
    text = pc.replace_substring_regex(text, f"[{BLANKS}]", "")
    text = pc.replace_substring(text, "\u2212", "-")
    text = text if how.decimal_point == "." else pc.replace_substring(text, how.decimal_point, ".")
    return pc.if_else(is_number, text, pa.scalar(None, pa.string()))


def _true_or_false(text: pa.Array) -> pa.Array:
    """`true` and `false` for any usual pair of words; other text as it is."""
    low = pc.utf8_lower(text)
    is_true = pc.is_in(low, value_set=pa.array(sorted(TRUE_FALSE)))
    is_false = pc.is_in(low, value_set=pa.array(sorted(set(TRUE_FALSE.values()))))
    return pc.if_else(is_true, "true", pc.if_else(is_false, "false", text))


def _by_value(text: pa.Array, read: Any) -> tuple[pa.Array, list[int]]:
    """What a function makes of each different text; rows of which it makes nothing are misfits."""
    encoded = text.dictionary_encode()
    values = pa.array([read(one) for one in encoded.dictionary.to_pylist()], pa.float64())
    taken = values.take(encoded.indices)
    return taken, np.flatnonzero(pc.and_(taken.is_null(), text.is_valid()).to_numpy(zero_copy_only=False)).tolist()


def _misfits(text: pa.Array, wanted: pa.DataType) -> np.ndarray:
    """Bool [n]: no value of the type.  Whole columns are looked at, and only what they cannot tell one by one."""
    kind = np.dtype(str(wanted)).kind
    is_misfit = ~_matches(text, _MAY_BE[kind]) & text.is_valid().to_numpy(zero_copy_only=False)
    is_told = is_misfit.copy()
    if kind in "iu":
        is_whole = _matches(text, _WHOLE) & ~is_misfit
        numbers = pc.if_else(pa.array(is_whole), text, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
        limits = np.iinfo(str(wanted))
        is_misfit |= is_whole & ((numbers < limits.min) | (numbers > limits.max))
        is_told |= is_whole
    is_open = ~is_told
    rows = np.flatnonzero(is_open)
    is_misfit[rows[_by_halves(text.take(pa.array(rows)), wanted)]] = True
    return is_misfit


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(text, pattern).fill_null(False).to_numpy(zero_copy_only=False)


def _by_halves(text: pa.Array, wanted: pa.DataType, offset: int = 0) -> list[int]:
    """Places of the texts that cannot be cast, each of which takes some ten casts to find."""
    try:
        text.cast(wanted)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return [offset]
        half = len(text) // 2
        return [*_by_halves(text[:half], wanted, offset), *_by_halves(text[half:], wanted, offset + half)]
    return []
