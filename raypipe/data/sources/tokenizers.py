"""The tokenizer files that transforms name: which they are, and their content, wherever they lie."""

from __future__ import annotations

import hashlib

from raypipe.data.sources.files import find, read_bytes
from raypipe.data.sources.place import SourceFile
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.text_transforms import PretrainedTokensTransform
from raypipe.spec.transforms import Transform

MAX_BYTES = 32 * 2**20


def tokenizer_files(spec: DataSpec) -> list[SourceFile]:
    """Of all transforms, in order.

    Raises:
        DataError: one is not there, or names several files.
    """
    named = [transform for transform in spec.transforms if isinstance(transform, PretrainedTokensTransform)]
    return [_file(transform, spec) for transform in named]


def with_tokenizers(spec: DataSpec) -> DataSpec:
    """The spec whose transforms hold the content of the files that they name, and its SHA-256.

    Raises:
        DataError: a file is not there, or is no UTF-8 text.
    """
    if not any(isinstance(transform, PretrainedTokensTransform) for transform in spec.transforms):
        return spec
    return spec.model_copy(update={"transforms": [_with_content(each, spec) for each in spec.transforms]})


def _with_content(transform: Transform, spec: DataSpec) -> Transform:
    if not isinstance(transform, PretrainedTokensTransform):
        return transform
    if transform.content is not None:
        return transform
    file = _file(transform, spec)
    if (file.size_bytes or 0) > MAX_BYTES:
        raise DataError(
            f"data.transforms: {transform.file} has {file.size_bytes} bytes; {MAX_BYTES} are read",
            "name a tokenizer.json",
        )
    data = read_bytes(file)
    try:
        content = data.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"data.transforms: {transform.file} is no JSON: it is no text", "name a tokenizer.json"
        ) from None
    digest = transform.sha256 or hashlib.sha256(data).hexdigest()
    return transform.model_copy(update={"content": content, "sha256": digest})


def _file(transform: PretrainedTokensTransform, spec: DataSpec) -> SourceFile:
    files = find(transform.file, spec.root or ".", (".json",))
    if len(files) != 1:
        raise DataError(
            f"data.transforms: '{transform.file}' matches {len(files)} files; it names one", "name one tokenizer.json"
        )
    return files[0]
