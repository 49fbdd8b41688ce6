"""File formats.

To add one: a variant in spec/sources.py, a file here with `files(source, root)` and `read(source, root, parallelism)`,
and a line in FORMATS; `raypipe.testing.contracts.FormatContract` says what must hold.
"""

from raypipe.data.formats import arrow, csv, idx, images, jsonl, numpy, parquet, sklearn, text, wav

FORMATS = {
    "csv": csv,
    "parquet": parquet,
    "jsonl": jsonl,
    "arrow": arrow,
    "images": images,
    "wav": wav,
    "numpy": numpy,
    "text": text,
    "idx": idx,
    "sklearn": sklearn,
}
