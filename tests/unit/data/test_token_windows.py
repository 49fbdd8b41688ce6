"""A text as windows of bytes or merged byte pairs: nothing of it is lost, and no window holds more than fits."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.data import learned_merges
from raypipe.data.formats import text_windows
from raypipe.data.formats.text_windows import read_file, windows
from raypipe.data.learned_merges import train_share, with_merges
from raypipe.data.next_tokens import language_of
from raypipe.data.sources.listing import list_files
from raypipe.data.spelling import Spelling, num_ids, problem
from raypipe.data.transforms import bpe
from raypipe.data.transforms.text import FIRST
from raypipe.errors import DataError
from raypipe.records import Column, Language, Signature
from raypipe.spec.base import fingerprint
from raypipe.spec.data import DataSpec
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.sources import TextWindowsSource
from raypipe.spec.splits import TimeSplit
from raypipe.testing.fakes import fit_columns
from tests.conftest import examples

SOURCE: dict[str, Any] = {"format": "text_windows", "path": "a.txt", "context_length": 8}
POEM = "the cat sat on the mat; the rat and the cat ran. " * 12
SOME_TEXT = st.text(st.one_of(st.sampled_from(list("aab  \n.,1é日💡 t")), st.characters(codec="utf-8")), max_size=80)


def described(**source: Any) -> DataSpec:
    return DataSpec.model_validate(
        {"task": "language_model", "source": {**SOURCE, **source}, "split": {"val_frac": 0.2, "test_frac": 0.2}}
    )


def learned(folder: Path, text: str = POEM, **source: Any) -> DataSpec:
    (folder / "a.txt").write_text(text)
    spec = described(tokenizer="bpe", max_vocabulary=300, **source)
    return with_merges(spec.model_copy(update={"root": str(folder)}))


def cut(text: list[str], spec: DataSpec) -> list[tuple[str, int]]:
    assert isinstance(spec.source, TextWindowsSource)
    return list(windows(text, spec.source))


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    return learned(tmp_path_factory.mktemp("text"))


def language(spec: DataSpec) -> Language:
    """That of a dataset version made of the spec; bytes and byte pairs learn nothing of the rows."""
    column = Column(name="text", dtype="string")
    fitted = fit_columns(spec.transforms, [column], [{"text": np.array([POEM[:40]], object)}])
    return language_of(Signature(inputs=(column,), task="language_model", target="text"), fitted)


@settings(max_examples=examples(60))
@given(text=SOME_TEXT, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9))
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_windows_are_the_whole_text_however_it_arrives_and_each_fits(
    tokenizer: str, text: str, sizes: list[int], merging: DataSpec
):
    spec = described(tokenizer="byte") if tokenizer == "byte" else merging
    spelling = Spelling(language(spec))
    pieces, left = [], text
    for size in sizes:
        pieces, left = [*pieces, left[:size]], left[size:]
    found = cut([*pieces, left], spec)
    for window, start in found:
        assert text[start : start + len(window)] == window
        assert len(spelling.ids(window)) <= 9
    kept, place = [], 0
    for window, start in found:
        kept.append(text[place:start])
        place = start + len(window)
    kept.append(text[place:])
    assert all(len(spelling.ids(rest)) < 2 for rest in kept), "only what predicts nothing is left out"


def test_tokens_of_windows_are_those_of_the_text(merging: DataSpec):
    spelling = Spelling(language(merging))
    found = [window for window, _ in cut([POEM], merging)]
    assert [i for window in found for i in spelling.ids(window)] == spelling.ids(POEM)
    assert len(found) < len(POEM) / 8 / 2, "words are fewer tokens than characters"


@settings(max_examples=examples(60))
@given(text=SOME_TEXT)
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_every_text_is_written_as_it_was_read(tokenizer: str, text: str, merging: DataSpec):
    spelling = Spelling(language(described(tokenizer="byte") if tokenizer == "byte" else merging))
    ids = spelling.ids(text)
    assert "".join(spelling.pieces(ids)) == text
    assert all(number >= FIRST for number in ids), "none is unknown"


def test_bytes_are_256_tokens():
    assert num_ids(language(described(tokenizer="byte"))) == FIRST + 256


def test_long_runs_become_windows_that_fit(merging: DataSpec):
    spelling = Spelling(language(merging))
    text = "".join(chr(ord("à") + i % 23) for i in range(100)) + " the cat " + "日" * 50
    found = [window for window, _ in cut([text], merging)]
    assert "".join(found) == text
    assert max(len(spelling.ids(window)) for window in found) <= 9


def test_run_without_blanks_that_arrives_in_pieces_is_merged_once(merging: DataSpec, monkeypatch: pytest.MonkeyPatch):
    encode, merged = bpe.encode, []
    monkeypatch.setattr(bpe, "encode", lambda word, *how: (merged.append(len(word)), encode(word, *how))[1])
    letters = random.Random(0).choices("abcdefgh", k=20_000)
    text, spec = "".join(letters), merging.model_copy(update={"source": wide(merging)})
    found = cut([text[i : i + 500] for i in range(0, len(text), 500)], spec)
    assert "".join(window for window, _ in found) == text
    assert sum(merged) < 1.2 * len(text)


def wide(spec: DataSpec) -> TextWindowsSource:
    """The source with a context that is longer than the text."""
    assert isinstance(spec.source, TextWindowsSource)
    return spec.source.model_copy(update={"context_length": 40_000})


def test_byte_pairs_are_learned_from_train_alone(tmp_path: Path):
    start, end = "ababab " * 600, "xyxyxy " * 400  # train is the first 0.6
    spec = learned(tmp_path, start + end)
    known = language(spec)
    words = {b"".join(bytes([b]) for b in _bytes(known, number)) for number in range(FIRST, num_ids(known))}
    assert b"ab" in words and not any(b"x" in word and len(word) > 1 for word in words)
    assert spec.source.merges == spec.transforms[0].merges  # pyright: ignore[reportAttributeAccessIssue]
    again = learned(tmp_path, start + "qrqrqr " * 400)
    assert again.source == spec.source, "what is not train changes nothing"


def test_files_behind_the_text_that_is_learned_from_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    share, num_chars = 0.6, len(POEM)
    monkeypatch.setattr(learned_merges, "LEARNED_CHARS", int(share * num_chars))
    alone = learned(tmp_path)
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    assert learned(tmp_path, path=["a.txt", "b.txt.gz"]).transforms == alone.transforms


def _bytes(known: Language, number: int) -> list[int]:
    if number < FIRST + 256:
        return [number - FIRST]
    return [byte for part in known.merges[number - FIRST - 256] for byte in _bytes(known, part)]


def test_share_of_train_is_what_the_split_says():
    by_share = TimeSplit(kind="time", column="position", val_frac=0.1, test_frac=0.2)
    assert train_share(by_share) == pytest.approx(0.7)
    assert train_share(TimeSplit(kind="time", column="position", val_from=0.5, test_from=0.75)) == 0.5
    assert train_share(TimeSplit(kind="time", column="position", val_frac=0, test_frac=0)) == 1.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"a\.txt is empty; a window of source\.context_length 8 needs 9"),
        ("äöü".encode(), r"a\.txt has 6 bytes; a window of source\.context_length 8 needs 9"),
    ],
)
def test_text_shorter_than_a_window_of_bytes_is_refused(content: bytes, words: str, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(content)
    source = TextWindowsSource.model_validate({**SOURCE, "tokenizer": "byte"})
    (file,) = list_files(source, str(tmp_path))
    with pytest.raises(DataError, match=words):
        pa.concat_tables(read_file(file, source=source))


def test_wrong_bytes_make_a_bad_row_and_positions_rise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merging: DataSpec
):
    monkeypatch.setattr(text_windows, "TABLE_ROWS", 2)
    for source in (described(tokenizer="byte").source, merging.source):
        assert isinstance(source, TextWindowsSource)
        (tmp_path / "a.txt").write_bytes(b"the cat \xff sat" + POEM.encode())
        (file,) = list_files(source, str(tmp_path))
        table = pa.concat_tables(read_file(file, source=source), promote_options="default")
        assert table["text"].null_count == 1
        position = table["position"].to_pylist()
        assert position == sorted(position) and position[0] == 0 and position[-1] < 1


def test_byte_pairs_that_nobody_learned_are_asked_for(tmp_path: Path):
    spec = described(tokenizer="bpe", max_vocabulary=300)
    with pytest.raises(DataError, match=r"data\.source\.merges is not there"):
        cut([POEM], spec)


@pytest.mark.parametrize(
    ("fields", "split", "words"),
    [
        ({"tokenizer": "bpe"}, {}, "tokenizer: bpe needs max_vocabulary"),
        ({"tokenizer": "byte", "max_vocabulary": 300}, {}, "max_vocabulary and merges are for tokenizer: bpe"),
        ({"tokenizer": "byte", "context_length": 4}, {}, "context_length: found 4; with tokenizer: byte it must be 8"),
        ({"tokenizer": "bpe", "max_vocabulary": 300}, {"kind": "hash"}, "split.kind must be time or directories"),
        ({"tokenizer": "word"}, {}, "'char', 'byte' or 'bpe'"),
    ],
)
def test_tokenizer_that_does_not_fit_is_refused(fields: dict[str, Any], split: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        DataSpec.model_validate({"task": "language_model", "source": {**SOURCE, **fields}, "split": split})


def test_bits_are_told_of_what_a_token_is():
    gate = {"gates": [{"metric": "bits_per_character", "max": 3}]}
    data = {"task": "language_model", "source": {**SOURCE, "tokenizer": "byte"}}
    with pytest.raises(ValidationError, match=r"'bits_per_character' is not a metric .* 'bits_per_byte'"):
        PipelineSpec.model_validate({"name": "p", "data": data, "model": {"kind": "gpt"}, "evaluate": gate})


def test_files_that_say_nothing_of_tokens_keep_their_versions():
    spec = DataSpec.model_validate({"task": "language_model", "source": SOURCE})
    assert set(spec.model_dump(mode="json")["source"]) == {"columns", "where", "path", "format", "context_length"}
    again = DataSpec.model_validate(described(tokenizer="byte").model_dump(mode="json"))
    assert again == described(tokenizer="byte")
    assert fingerprint(again.shaping()) != fingerprint(described().shaping())


def test_spec_whose_pairs_were_learned_is_read_again(merging: DataSpec):
    again = DataSpec.model_validate(merging.model_dump(mode="json"))
    assert again == merging and with_merges(again) is again


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokenizer": "byte", "tokens": ("a",)}, "1 characters for tokenizer byte"),
        ({"tokenizer": "char", "tokens": ()}, "0 characters for tokenizer char"),
        ({"tokenizer": "byte", "merges": ((2, 3),)}, "merges: some for tokenizer byte"),
        ({"tokenizer": "bpe", "merges": ((2, 258),)}, r"\[2, 258\] is no pair of ids"),
        ({"tokenizer": "bpe", "merges": ((1, 2),)}, r"\[1, 2\] is no pair of ids"),
        ({"tokenizer": "bpe", "merges": ((2, 2), *((258 + i, 258 + i) for i in range(40)))}, "more than 256 bytes"),
    ],
)
def test_forged_language_is_refused(fields: dict[str, Any], words: str):
    forged = Language.model_validate({"context_length": 4, "tokens": (), **fields})
    assert re.search(words, problem(forged))
    assert not problem(Language(context_length=4, tokens=(), tokenizer="bpe", merges=((2, 3), (258, 2))))
