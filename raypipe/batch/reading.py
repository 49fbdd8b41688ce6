"""The rows a model is asked about are read as those it learned: delimiter, null words, types, sample rate and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.data.table.one_type import AskedJsonl, MixedSource
from raypipe.records import Reading, Signature
from raypipe.spec.sources import NOT_HOW, CsvSource, JsonlSource, Source


def source_fields(given: Mapping[str, Any], reading: Reading | None) -> dict[str, Any]:
    """The fields of an input's source.

    Args:
        given: `format`, and the fields the caller names, which go before.
        reading: of the model; it says nothing of another format.
    """
    if reading is None or reading.format != given["format"]:
        return dict(given)
    return {**{name: value for name, value in reading.settings.items() if name not in NOT_HOW}, **given}


def as_learned(source: Source, signature: Signature) -> Any:
    """The source with every input that is text for the model read as text: digits alone would become numbers.

    Columns of the training data that are no inputs, the target first of all, need not be there.
    """
    settings = signature.reading.settings if signature.reading is not None else {}
    inputs = [column.name for column in signature.inputs]
    learned = set(settings.get("dtypes", {}))
    if isinstance(source, CsvSource):
        text = {column.name: "string" for column in signature.inputs if column.dtype == "string"}
        mixed = tuple(sorted(learned | text.keys()))
        return MixedSource.model_validate({**dict(source), "dtypes": {**text, **source.dtypes}, "mixed": mixed})
    if isinstance(source, JsonlSource):  # a declared field that no line has becomes a column of nulls
        kept = {name: dtype for name, dtype in source.dtypes.items() if name in inputs or name not in learned}
        fields = {**dict(source), "dtypes": kept, "asked": tuple(inputs), "others_matter": False}
        return AskedJsonl.model_validate(fields)
    return source
