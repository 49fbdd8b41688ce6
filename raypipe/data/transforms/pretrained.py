"""Text to the token ids of a tokenizer.json, which somebody else trained.

What the file holds is what was fitted: it goes with the dataset version and the model, and whoever applies it needs no
path.
B rows, T tokens a row.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import (
    Fitted,
    State,
    TransformKind,
    need_text,
    refuse_missing,
)
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.text_transforms import PretrainedTokensTransform

MAX_BYTES = 32 * 2**20

MAX_IDS = 2**24
"""Beyond it float32 no longer tells neighbours apart."""

TOKEN_CHARS = 64
"""Of a text, this many characters for each token of a row are read."""

PARTS = {
    "normalizer": "BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Sequence Strip "
    "StripAccents",
    "pre_tokenizer": "BertPreTokenizer ByteLevel CharDelimiterSplit Digits FixedLength Metaspace Punctuation Sequence "
    "Split UnicodeScripts Whitespace WhitespaceSplit",
    "post_processor": "BertProcessing ByteLevel RobertaProcessing Sequence TemplateProcessing",
}
"""Part of the file -> the kinds of it, which the library itself carries."""

MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
KEYS = ("version", "truncation", "padding", "added_tokens", "decoder", "model", *PARTS)

OUTSIDE = (
    "auto_map",
    "class",
    "code",
    "file",
    "filename",
    "import",
    "merges_file",
    "module",
    "path",
    "url",
    "vocab_file",
)
"""Names of fields that no part has, and by which files refer to code or other files."""

UNSEEN = "a \U000f0000 \u4e00\u0130"
"""A text that every tokenizer must take: one that knows no unknown token does not."""

PADDING = ("[PAD]", "<pad>", "<PAD>", "<|pad|>")


class PretrainedTokens(TransformKind):
    """Ids of the first tokens."""

    @staticmethod
    def check(spec: PretrainedTokensTransform, column: Column) -> Column:
        need_text(spec, column)
        if spec.content is not None:
            read_tokenizer(spec.content, spec)
        return column.model_copy(update={"dtype": "float32", "shape": (spec.max_length,), "nullable": False})

    @staticmethod
    def finish(spec: PretrainedTokensTransform, partial: Any, name: str) -> Fitted:
        if spec.content is None:
            raise DataError(
                f"data.transforms: {spec.file} was not read", "prepare the data with `raypipe data` or `run`"
            )
        tokenizer = read_tokenizer(spec.content, spec)
        num_ids = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1 + (spec.ids == "shifted")
        if num_ids > MAX_IDS:
            raise _refused(spec, f"has ids up to {num_ids - 1:,}; they must be below {MAX_IDS:,}", "use another one")
        return {
            "zipped": base64.b64encode(zlib.compress(spec.content.encode(), 6)).decode(),
            "num_ids": num_ids,
            "padding": 0 if spec.ids == "shifted" else padding_id(tokenizer, spec),
        }

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        _need_library()
        self._spec = PretrainedTokensTransform.model_validate({**state, "columns": [name]})
        self._num_ids, self._padding = int(fitted["num_ids"]), int(fitted["padding"])
        if not 0 <= self._padding < self._num_ids <= MAX_IDS:
            raise ValueError(f"padding {self._padding} of {self._num_ids} ids")
        self._read: Any = None

    def apply(self, values: pa.Array) -> np.ndarray:
        """float32 [B, T]."""
        refuse_missing(values, self.name)
        spec = self._spec
        ids_BT = np.full((len(values), spec.max_length), self._padding, np.float32)
        for row, text in enumerate(values.to_pylist()):
            text = text[: TOKEN_CHARS * spec.max_length]
            ids = np.array(self._tokenizer().encode(text, add_special_tokens=spec.special_tokens).ids, np.int64)
            ids_BT[row, : len(ids)] = ids + (spec.ids == "shifted")
        if ids_BT.max(initial=0) >= self._num_ids:
            raise DataError(f"column '{self.name}': the tokenizer gives an id that is not below {self._num_ids}")
        return ids_BT

    def _tokenizer(self) -> Any:
        """Read when the first text needs it."""
        if self._read is None:
            self._read = read_tokenizer(unzipped(self.fitted["zipped"]), self._spec)
        return self._read


def read_tokenizer(content: str, spec: PretrainedTokensTransform) -> Any:
    """The tokenizer of a file, which cuts to `max_length` and pads nothing.

    Raises:
        DataError: it is not the file that the digest tells, is no tokenizer, refers to anything outside, or the
            library is missing.
    """
    found = hashlib.sha256(content.encode()).hexdigest()
    if spec.sha256 is not None and found != spec.sha256:
        raise _refused(spec, f"has SHA-256 {found}, and {spec.sha256} is wanted", "name the file that was meant")
    check_document(content, spec)
    _need_library()
    library = importlib.import_module("tokenizers")
    try:
        tokenizer: Any = library.Tokenizer.from_str(content)
        tokenizer.no_padding()
        tokenizer.enable_truncation(spec.max_length)
        tokenizer.encode(UNSEEN)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise _refused(spec, f"is no tokenizer that takes every text: {str(error)[:200]}", SAVE_IT) from None
    return tokenizer


SAVE_IT = "write it with the tokenizer's save(), or tokenizer.save_pretrained(): its tokenizer.json"


def check_document(content: str, spec: PretrainedTokensTransform) -> None:
    """Refuse what is no JSON of a tokenizer, or names anything that is not in it; nothing of it is run.

    Raises:
        DataError: naming the part.
    """
    if len(content) > MAX_BYTES:
        raise _refused(spec, f"has {len(content):,} characters; {MAX_BYTES:,} are read", "use a smaller tokenizer")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(spec, f"is no JSON: {str(error)[:200]}", SAVE_IT) from None
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise _refused(spec, "is no tokenizer: it has no `model`", SAVE_IT)
    safe = "use a tokenizer whose parts are all in its file"
    if other := [key for key in document if key not in KEYS]:
        raise _refused(spec, f"holds '{str(other[0])[:40]}', which no tokenizer has and which may name code", safe)
    if model.get("type", "BPE") not in MODELS or not isinstance(model.get("vocab"), dict | list):
        raise _refused(spec, f"has a model '{str(model.get('type'))[:40]}' without a vocabulary of its own", safe)
    outer = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    for where, part in (("model", outer), *((key, document.get(key)) for key in ("added_tokens", "decoder", *PARTS))):
        for fields in _objects(part):
            kind = fields.get("type")
            if where in PARTS and isinstance(kind, str) and kind not in PARTS[where].split():
                raise _refused(spec, f"has a {where} of type '{kind[:40]}', which is code of its own", safe)
            if outside := [name for name in fields if name in OUTSIDE]:
                raise _refused(spec, f"refers to the outside: {where} has '{outside[0]}'", safe)


def padding_id(tokenizer: Any, spec: PretrainedTokensTransform) -> int:
    """Of the file's own token for padding.

    Raises:
        DataError: there is none.
    """
    named = json.loads(spec.content or "{}").get("padding")
    told = [named["pad_token"]] if isinstance(named, dict) and "pad_token" in named else []
    ids = [tokenizer.token_to_id(token) for token in (*told, *PADDING)]
    found = next((each for each in ids if each is not None), None)
    if found is None:
        raise _refused(spec, "has no token for padding", "set `ids: shifted`, where 0 is padding")
    return found


def unzipped(text: str) -> str:
    """What `zipped` holds.

    Raises:
        DataError: it is damaged, or too large.
    """
    try:
        opened = zlib.decompressobj()
        data = opened.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
        if opened.unconsumed_tail:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        return data.decode()
    except (ValueError, zlib.error) as error:
        raise DataError(f"the tokenizer that is kept cannot be read: {error}") from None


def _need_library() -> None:
    """Raise DataError unless the library is there; a model that needs it is then refused as it is loaded."""
    if find_spec("tokenizers") is None:
        raise DataError(
            "data.transforms: pretrained_tokens needs tokenizers, which is not installed: pip install "
            "'raypipe[tokenizers]'"
        )


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a part of the file; json.loads has bounded how deep they lie."""
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _refused(spec: PretrainedTokensTransform, what: str, hint: str) -> DataError:
    return DataError(f"data.transforms: {spec.file} {what}", hint)
