"""File formats.

To add one: a variant in spec/sources.py, a file here with a Format (FileFormat where each file is a table, FolderFormat
where each is a row), and a line in FORMATS; `raypipe.testing.contracts.FormatContract` says what must hold.
"""

from raypipe.data.formats.arrow import Arrow
from raypipe.data.formats.base import Format
from raypipe.data.formats.csv import Csv
from raypipe.data.formats.idx import Idx
from raypipe.data.formats.images import Images
from raypipe.data.formats.jsonl import Jsonl
from raypipe.data.formats.numpy import Numpy
from raypipe.data.formats.parquet import Parquet
from raypipe.data.formats.sklearn import Sklearn
from raypipe.data.formats.sound import Sound
from raypipe.data.formats.text import Text
from raypipe.data.formats.text_windows import TextWindows

FORMATS: dict[str, Format] = {
    "csv": Csv(),
    "parquet": Parquet(),
    "jsonl": Jsonl(),
    "arrow": Arrow(),
    "images": Images(),
    "sound": Sound(),
    "numpy": Numpy(),
    "text": Text(),
    "text_windows": TextWindows(),
    "idx": Idx(),
    "sklearn": Sklearn(),
}
