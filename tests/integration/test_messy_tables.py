"""CSV as strangers publish it is read as a person reads it, with settings that messages name; what is wrong is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.checks import stray
from raypipe.data.checks.bad_rows import BadRows, refuse_too_many
from raypipe.data.checks.class_warnings import misspelt
from raypipe.data.checks.remedies import remedies
from raypipe.data.checks.schema import fitting_schema, refuse_lost_zeros, types_of, with_unread
from raypipe.data.formats import FORMATS
from raypipe.data.formats.datasource import read_group
from raypipe.data.shuffle.read_all import as_read, refuse_absent
from raypipe.data.shuffle.recognise import recognise
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from tests.integration.messy_tables import TABLES, Table
from tests.unit.data.helpers import check

MAX_SETTINGS = 3


def spec_of(table: Table, folder: Path, settings: dict[str, Any]) -> DataSpec:
    """What a user writes: text columns of the expected values are encoded, those with gaps imputed."""
    fields = {"target": "y", **table.spec}
    dates, imputed = fields.pop("dates", []), fields.pop("imputed", [])
    given = fields.pop("encoded", None)
    texts = [n for n, values in table.values.items() if n != fields["target"] and isinstance(values[-1], str)]
    encoded = [name for name in (texts if given is None else given) if name not in dates]
    features = fields.pop("features", [name for name in table.values if name != fields["target"]] or ["a"])
    most = [name for name in imputed if name in texts]
    transforms = [
        {"kind": "impute", "columns": [n for n in imputed if n not in most]},
        {"kind": "impute", "columns": most, "strategy": "most_frequent"},
        {"kind": "date_parts", "columns": dates},
        {"kind": "one_hot", "columns": encoded},
    ]
    source = {"format": "csv", "path": "f.csv", **fields.pop("source", {}), **settings}
    used = [transform for transform in transforms if transform["columns"]]
    return DataSpec.model_validate(
        {**fields, "root": str(folder), "source": source, "features": features, "transforms": used}
    )


def prepared(spec: DataSpec, told: list[str]) -> dict[str, list[Any]]:
    """The rows as they would be stored, in the file's order; without Ray.

    Args:
        told: takes what is said on the way.
    Raises:
        DataError: as preparing does.
    """
    spec, lines = recognise(spec)
    told += lines
    (part,) = spec.parts()
    source = as_read(part.source, spec)
    parts, read_part = FORMATS[source.format].plan(source, spec.root or ".", is_judged=True)
    tables = list(read_group(parts, read_part, source.columns, source.where, is_judged=True))
    profiles = [types_of(table) for table in tables]
    refuse_absent(profiles, part.field, spec)
    try:
        schema = fitting_schema(spec, profiles)
    except DataError as error:
        tallies, _ = stray.look(pa.concat_tables(tables), stray.wanted(error))
        raise with_unread(stray.explained(error, tallies, spec), profiles) from None
    refuse_lost_zeros(schema, profiles)
    columns: dict[str, list[Any]] = {}
    bad = BadRows()
    for table in tables:
        values, aside = check(table, schema)
        bad.add(aside)
        for name, column in values.items():
            found = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
            columns.setdefault(name, []).extend(None if value != value else value for value in found)
    for row in bad.kept:
        row["row_number"] = row.pop("position") + 1
    refuse_too_many(bad, sum(table.num_rows for table in tables), 0.0, remedies=remedies(bad, spec))
    (target,) = spec.targets
    labels = {label: columns[target].count(label) for label in set(columns[target])}
    told += [warning.text for warning in misspelt(labels, target)]
    return columns


def said(spec: DataSpec) -> str:
    """All that is told of a file, whether it is refused or not."""
    told: list[str] = []
    try:
        prepared(spec, told)
    except DataError as error:
        told += [error.message, error.hint]
    return "\n".join(told)


def write(folder: Path, data: bytes) -> None:
    (folder / "f.csv").write_bytes(data)


@pytest.mark.parametrize("name", TABLES)
def test_table_is_read_as_a_person_reads_it_with_settings_that_messages_name(name: str, tmp_path: Path):
    table = TABLES[name]
    write(tmp_path, table.data)
    if table.refused:
        assert table.refused in said(spec_of(table, tmp_path, {}))
        return
    given: dict[str, Any] = {}
    assert len(table.settings) <= MAX_SETTINGS
    while len(given) < len(table.settings):
        message = said(spec_of(table, tmp_path, given))
        named = {field: value for field, value in table.settings.items() if f"data.source.{field}" in message}
        assert named.keys() - given.keys(), f"no message names what is missing: {message}"
        given |= named
    columns = prepared(spec_of(table, tmp_path, given), [])
    assert {column: columns[column] for column in table.values} == table.values


@pytest.mark.parametrize("name", TABLES)
def test_table_that_is_wrong_is_refused_or_told(name: str, tmp_path: Path):
    table = TABLES[name]
    write(tmp_path, table.corrupted)
    message = said(spec_of(table, tmp_path, table.settings))
    assert table.told in message, message
