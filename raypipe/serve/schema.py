"""What a request must hold, in words: names, counts and single values against the artifact's signature.

checker.py reads whole columns at once and comes here for what does not fit, which raises, and for values that fit in
an unusual form (`3.0` for an integer, a text that means 'no value').
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from raypipe.data.table import fits, text_lists
from raypipe.errors import RequestError
from raypipe.records import Column, Signature

MAX_SHOWN_CHARS = 40
MAX_SHOWN_NAMES = 5
MAX_COMPARED_NAMES = 50


def check_row_list(instances: Any, signature: Signature, max_rows: int) -> None:
    """Refuse what is no list of rows.

    Raises:
        RequestError: 400, or 413 where there are too many.
    """
    if not isinstance(instances, list):
        raise RequestError(f"'instances' must be a list of rows; found {kind_of(instances)}", example_of(signature))
    check_row_count(len(instances), signature, max_rows)


def check_row_count(num_rows: int, signature: Signature, max_rows: int) -> None:
    """Refuse a request without rows, or with too many.

    Raises:
        RequestError: 400, or 413.
    """
    if not num_rows:
        raise RequestError("the request holds no row; it must hold at least one", example_of(signature))
    if num_rows > max_rows:
        raise RequestError(
            f"the request holds {num_rows} rows; at most {max_rows} are answered at once",
            "send fewer rows per request, or use batch inference: raypipe predict",
            status=413,
        )


def example_of(signature: Signature) -> str:
    """One line that shows the expected body."""
    fields = ", ".join(f'"{c.name}": {expected(c)}' for c in signature.inputs[:MAX_SHOWN_NAMES])
    more = ", ..." if len(signature.inputs) > MAX_SHOWN_NAMES else ""
    return f'{{"instances": [{{{fields}{more}}}]}}'


def values_by_column(instances: list[Any], signature: Signature) -> Sequence[Sequence[Any]]:
    """Turn rows into one list of values a column.

    Raises:
        RequestError: a row lacks a field, or has one too many.
    """
    inputs = signature.inputs
    kinds = set(map(type, instances))
    if kinds == {dict}:
        try:
            values = [[row[c.name] for row in instances] for c in inputs]
        except KeyError:  # told below, with the row
            values = None
        ignores_extra = signature.extra_columns == "ignore"
        if values is not None and (ignores_extra or all(len(row) == len(inputs) for row in instances)):
            return values
    elif len(inputs) == 1 and dict not in kinds:
        return [instances]
    elif kinds == {list} and all(len(row) == len(inputs) for row in instances):
        return list(zip(*instances, strict=True))
    rows = [_row(row, index, signature) for index, row in enumerate(instances)]
    return list(zip(*rows, strict=True))


def values_of_columns(inputs: Any, signature: Signature, max_rows: int) -> list[list[Any]]:
    """{column: [value, ...]} -> one list of values a column; a bare list where the model has a single input.

    Raises:
        RequestError: 400 for names and lengths that do not fit, or 413.
    """
    names = [column.name for column in signature.inputs]
    if len(names) == 1 and isinstance(inputs, list):
        inputs = {names[0]: inputs}
    if not isinstance(inputs, dict):
        raise RequestError(
            f"found {kind_of(inputs)}; expected an object with a list of values for each field", example_of(signature)
        )
    check_names(inputs, signature)
    for name in names:
        if not isinstance(inputs[name], list):
            raise RequestError(
                f"field '{name}': found {kind_of(inputs[name])}; expected a list with one value a row",
                example_of(signature),
            )
    lengths = sorted({len(inputs[name]) for name in names})
    if len(lengths) > 1:
        raise RequestError(f"the fields hold {several(lengths)} values; all must hold one a row")
    check_row_count(lengths[0], signature, max_rows)
    return [inputs[name] for name in names]


def check_names(names: Iterable[str], signature: Signature) -> None:
    """Refuse a request of columns that lacks an input, or has one too many.

    Raises:
        RequestError: 400.
    """
    known = {column.name for column in signature.inputs}
    given = dict.fromkeys(str(name) for name in names)
    extra = [name for name in given if name not in known]
    if extra and signature.extra_columns == "error":
        raise RequestError(f"unknown field {shown(extra[0])}", _did_you_mean(extra[0], signature))
    for column in signature.inputs:
        if column.name not in given:
            raise RequestError(
                f"field '{column.name}' is missing; expected {expected(column)}", _meant(column, extra, signature)
            )


def objects_within(signature: Signature) -> dict[str, list[str]]:
    """The objects that fields of the model may stand in -> those fields: of `user.home.city`, `user` too."""
    within: dict[str, list[str]] = {}
    names = {column.name for column in signature.inputs}
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            within.setdefault(".".join(parts[:i]), []).append(name)
    return {name: fields for name, fields in within.items() if name not in names}


def path_of(name: str, within: Container[str]) -> tuple[str, ...]:
    """The objects that a field stands in, and its name in the last: those of `within`."""
    parts = name.split(".")
    path: list[str] = []
    start = 0
    for i in range(1, len(parts)):
        if ".".join(parts[:i]) in within:
            path.append(".".join(parts[start:i]))
            start = i
    return (*path, ".".join(parts[start:]))


def unnested(fields: dict[str, Any], within: Mapping[str, Sequence[str]], where: str) -> dict[str, Any]:
    """A row, or columns, with the fields of objects by their dotted names, as files are read.

    Args:
        within: of `objects_within`; other objects stay as they are.
        where: for messages.
    Raises:
        RequestError: 400 where a field is given twice.
    """
    if within.keys().isdisjoint(fields):
        return fields
    flat: dict[str, Any] = {}
    pending = list(reversed(fields.items()))
    while pending:
        name, value = pending.pop()
        if name in within and isinstance(value, dict):
            pending += [(f"{name}.{inner}", each) for inner, each in reversed(value.items())]
            continue
        for each in within[name] if name in within and value is None else (name,):
            if each in flat:
                raise RequestError(
                    f"{where}field {shown(each)} is given twice, by this name and in an object", "give it once"
                )
            flat[each] = value
    return flat


def first_repeated(names: Iterable[str]) -> str | None:
    """A name that is there more than once; None: there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def several(numbers: Sequence[int]) -> str:
    """`3 and 5`; the first and the last of more."""
    return f"{numbers[0]} and {numbers[-1]}"


def checked_value(column: Column, value: Any, where: str, null_words: frozenset[str]) -> Any:
    """One scalar as the column holds it; NaN or None where it is missing.

    Raises:
        RequestError: it is none.
    """
    if isinstance(value, str) and value in null_words:
        if not column.nullable:
            raise RequestError(
                f"{where}: found {shown(value)}, which meant 'no value' in the training data; a value is required",
                f"expected {expected(column)}",
            )
        value = None
    if value is None:
        if not column.nullable:
            raise RequestError(f"{where}: found null; a value is required", f"expected {expected(column)}")
        return None if column.dtype == "string" else math.nan
    if column.is_list:
        is_texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        return text_lists.written(value) if is_texts else _refuse(where, value, "a list of strings", column)
    if column.dtype == "string":
        return value if isinstance(value, str) else _refuse(where, value, "a string", column)
    if column.dtype == "bool":
        return value if isinstance(value, bool) else _refuse(where, value, "true or false", column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, value, "a number", column)
    return _number(column, value, where)


def wrong(where: str, value: Any, wanted: str, column: Column) -> RequestError:
    """The error for a value of another kind."""
    found = described(value)
    return RequestError(f"{where}: found {found}; expected {wanted}", f"expected {expected(column)}")


def expected(column: Column) -> str:
    """What a column's value must be, as it stands in an example."""
    if column.is_list:
        return "<list of strings>"
    kind = {"string": "string", "bool": "boolean"}.get(column.dtype, column.dtype)
    text = f"<{kind}>" if not column.shape else f"<{kind} list of shape {list(column.shape)}>"
    return f"{text[:-1]} or null>" if column.nullable else text


def described(value: Any) -> str:
    """`'a' (string)`, `a list of 3`."""
    return shown(value) if isinstance(value, list | dict) else f"{shown(value)} ({kind_of(value)})"


def kind_of(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {str: "string", int: "integer", float: "number", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A value for people; text stands in quotes, so that nothing and blanks are told apart.

    Of a list or an object only which it is: it may be as large as a body, and nested too deep to be written.
    """
    if isinstance(value, list | dict):
        return kind_of(value)
    text = shortened(value if isinstance(value, str) else repr(value))
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return f"'{text}'" if isinstance(value, str) else text


def shortened(text: str) -> str:
    """A text of few characters, or the beginning of it."""
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _row(row: Any, index: int, signature: Signature) -> list[Any]:
    """Values of one row in the signature's order; the exact word on what is wrong with it."""
    inputs = signature.inputs
    if isinstance(row, dict):
        known = {c.name for c in inputs}
        extra = [str(name) for name in row if name not in known]
        if extra and signature.extra_columns == "error":
            raise RequestError(f"row {index}: unknown field {shown(extra[0])}", _did_you_mean(extra[0], signature))
        for column in inputs:
            if column.name not in row:
                raise RequestError(
                    f"row {index}: field '{column.name}' is missing; expected {expected(column)}",
                    _meant(column, extra, signature),
                )
        return [row[c.name] for c in inputs]
    if len(inputs) == 1:
        return [row]
    if not isinstance(row, list):
        raise RequestError(
            f"row {index}: found {kind_of(row)}; expected an object with the fields of the model", example_of(signature)
        )
    if len(row) != len(inputs):
        names = ", ".join(c.name for c in inputs[:MAX_SHOWN_NAMES]) + (", ..." if len(inputs) > MAX_SHOWN_NAMES else "")
        raise RequestError(
            f"row {index}: found {len(row)} values; expected {len(inputs)} ({names})",
            "send an object {field: value} to name them",
        )
    return row


def _meant(column: Column, extra: Sequence[str], signature: Signature) -> str:
    near = [name[:MAX_SHOWN_CHARS] for name in extra[:MAX_COMPARED_NAMES]]
    close = difflib.get_close_matches(column.name, near, n=1)
    return f"is {shown(close[0])} meant? name it '{column.name}'" if close else example_of(signature)


def _number(column: Column, value: int | float, where: str) -> int | float:
    is_float = column.dtype.startswith("float")
    why = fits.misfit(value, column.dtype)
    if is_float and why in (fits.INFINITE, fits.NAN):
        raise RequestError(f"{where}: found {value}; expected a finite number", "leave out NaN and infinity")
    if is_float and why is not None:
        raise RequestError(f"{where}: {shown(value)} does not fit {column.dtype}", "check the unit of this field")
    if why == fits.OUT_OF_RANGE:
        low, high = fits.limits(column.dtype)
        raise RequestError(
            f"{where}: {shown(value)} is out of range; {column.dtype} holds {low} to {high}",
            "check the unit of this field",
        )
    if why is not None:
        raise wrong(where, value, f"an integer ({column.dtype})", column)
    return value if is_float else int(value)


def _refuse(where: str, value: Any, wanted: str, column: Column) -> Any:
    raise wrong(where, value, wanted, column)


def _did_you_mean(name: str, signature: Signature) -> str:
    names = [c.name for c in signature.inputs]
    close = difflib.get_close_matches(name[:MAX_SHOWN_CHARS], names, n=1)
    known = ", ".join(names[:MAX_SHOWN_NAMES]) + (", ..." if len(names) > MAX_SHOWN_NAMES else "")
    return f"did you mean '{close[0]}'?" if close else f"the fields are: {known}"
