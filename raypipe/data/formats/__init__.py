"""File formats.

To add one: a variant in spec/data.py, a file here with `files(source, root)` and `read(source, root, parallelism)`,
and a line in FORMATS; `raypipe.testing.contracts.FormatContract` says what must hold.
"""

from raypipe.data.formats import csv, idx, jsonl, parquet, sklearn

FORMATS = {"csv": csv, "parquet": parquet, "jsonl": jsonl, "idx": idx, "sklearn": sklearn}
