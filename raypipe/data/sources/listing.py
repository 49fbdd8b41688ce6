"""Which files a source of any format names, and what tells that one of them changed; reads at most a small source."""

from __future__ import annotations

from importlib.metadata import version

from raypipe.data.sources.files import find
from raypipe.data.sources.place import SourceFile
from raypipe.data.sources.tokenizers import tokenizer_files
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.labels import NamedFiles
from raypipe.spec.sources import SklearnSource, SourceSpec


def list_files(source: SourceSpec, root: str) -> list[SourceFile]:
    """All files of a source, in the order in which its fields name them.

    Raises:
        DataError: nothing is there, or several files where one is named.
    """
    if isinstance(source, SklearnSource):  # bundled: it changes with the package
        return [SourceFile(f"sklearn/{source.dataset}", "", 0, version("scikit-learn"))]
    return [file for named in source.named_files() for file in find_named(named, root)]


def find_named(named: NamedFiles, root: str) -> list[SourceFile]:
    """The files that one field names; raises as `list_files`."""
    files = find(named.paths, root, named.suffixes)
    if named.is_one and len(files) != 1:
        raise DataError(
            f"data.source.{named.field}: '{named.paths}' matches {len(files)} files; it names one", "name one file"
        )
    return files


def listed(spec: DataSpec) -> list[list[tuple[str, int | None, str]]]:
    """Name, size and tag of every file of each source, and of those that transforms name; raises as `list_files`."""
    root = spec.root or "."
    tokenizers = tokenizer_files(spec)
    files = [list_files(part.source, root) for part in spec.parts()] + ([tokenizers] if tokenizers else [])
    return [[(f.name, f.size_bytes, f.tag) for f in some] for some in files]
