"""Personal data does not get past `Masking`: not as a value, not in a message, not in the bytes that travel on."""

from __future__ import annotations

import hashlib
import hmac
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.data.extensions import ArrowTensorArray

from raypipe.data.masking import REDACTED, Masking, MaskKeys, read_keys
from raypipe.data.table.marks import BAD, FILE_KEY
from raypipe.data.table.names import require
from raypipe.errors import DataError, SpecError, StoreError
from raypipe.spec.masking import MaskSpec

KEY = "0123456789abcdef0123456789abcdef"
KEYS = MaskKeys({"MASKING_KEY": KEY.encode()})
OTHER = MaskKeys({"MASKING_KEY": b"x" * 32})


def masks(**methods: str) -> list[MaskSpec]:
    keyed = {"hash": {"key_env": "MASKING_KEY"}, "tokenize": {"key_env": "MASKING_KEY"}}
    return [MaskSpec.model_validate({"columns": [c], "method": m, **keyed.get(m, {})}) for c, m in methods.items()]


def masked(values, method: str, keys: MaskKeys = KEYS) -> list[str | None]:
    return Masking(masks(who=method), keys).apply(pa.table({"who": values}), "f.csv")["who"].to_pylist()


def ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_drop_removes_the_column_and_keeps_the_rest():
    block = pa.table({"a": [1, 2], "who": ["x", "y"], "b": [3, 4]}).replace_schema_metadata({FILE_KEY: "f.csv"})
    found = Masking(masks(who="drop"), KEYS).apply(block, "f.csv")
    assert found.column_names == ["a", "b"]
    assert found.schema.metadata == block.schema.metadata


def test_redact_writes_one_constant_and_keeps_what_is_missing():
    assert masked(["x", None, "y"], "redact") == [REDACTED, None, REDACTED]


def test_redact_of_arrays_writes_the_constant():
    images = ArrowTensorArray.from_numpy(np.zeros((2, 3, 3), np.uint8))
    assert masked(images, "redact") == [REDACTED, REDACTED]
    assert masked(pa.array([[1, 2], None]), "redact") == [REDACTED, None]


def test_hash_is_the_keyed_sha256_that_others_compute():
    expected = hmac.new(KEY.encode(), b"Ada Lovelace", hashlib.sha256).hexdigest()
    assert masked(["Ada Lovelace", None], "hash") == [expected, None]
    assert masked(["Ada Lovelace"], "hash", OTHER) != [expected]


@pytest.mark.parametrize("method", ["hash", "tokenize"])
def test_keyed_methods_of_equal_numbers_agree_over_types_and_blocks(method):
    whole, floats = masked(pa.array([7, 12345]), method), masked(pa.array([12345.0, float("nan"), None]), method)
    assert whole[1] == floats[0] == masked(["12345"], method)[0]
    assert floats[1:] == [None, None]


@pytest.mark.parametrize("method", ["redact", "hash", "tokenize"])
@pytest.mark.parametrize(
    "values",
    [pa.array(["a"]), pa.array([1]), pa.array([1.5]), pa.array([True]), pa.nulls(1), pa.array(["a"])[:0]],
    ids=["text", "int", "float", "bool", "null", "empty"],
)
def test_masked_column_is_text_whatever_it_was(method, values):
    assert (
        Masking(masks(who=method), KEYS).apply(pa.table({"who": values}), "f.csv").schema.field("who").type
        == pa.string()
    )


@pytest.mark.parametrize("method", ["hash", "tokenize"])
def test_keyed_methods_of_arrays_are_refused_with_the_remedy(method):
    with pytest.raises(DataError, match=r"f\.csv: column 'who' holds list of int64.*\ntry: set method: drop or redact"):
        Masking(masks(who=method), KEYS).apply(pa.table({"who": [[1, 2]]}), "f.csv")


@given(st.text(max_size=40))
def test_tokenize_keeps_the_shape_and_none_of_the_text(text):
    (token,) = masked([text], "tokenize")
    assert token is not None and len(token) == len(text)
    assert (token,) == tuple(masked([text], "tokenize"))
    for old, new in zip(text, token, strict=True):
        assert new == old or new.isascii()
        if old.isupper() and old.isalpha():
            assert new in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        elif old.isalpha():
            assert new in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        elif old.isnumeric():
            assert new in "0123456789"
    assert token != text or not any(sign.isalnum() for sign in text)


def test_tokenize_of_a_card_and_a_name_reads_like_one():
    card, name = masked(["4111-1111-1111-1111", "Ada LOVELACE, 2nd"], "tokenize")
    assert card is not None and [len(part) for part in card.split("-")] == [4, 4, 4, 4]
    assert card.replace("-", "").isdecimal()
    assert name is not None and name[0].isupper() and name[1:3].islower() and name[4:12].isupper()
    assert name[12:14] == ", " and name[14].isdecimal()
    assert masked(["4111-1111-1111-1111"], "tokenize", OTHER) != [card]


@given(
    st.lists(st.one_of(st.none(), st.text(st.characters(categories=["L", "N"]), min_size=8, max_size=20)), min_size=1),
    st.sampled_from(["drop", "redact", "hash", "tokenize"]),
    st.data(),
)
def test_planted_values_are_nowhere_in_what_travels_on(texts, method, data):
    canaries = [None if text is None else f"CANARY{text}" for text in texts]
    cut = data.draw(st.integers(0, len(canaries)))
    who = pa.chunked_array([canaries[:cut], canaries[cut:]], pa.string())
    reasons = pa.array([f"line '{c}' is short" for c in canaries])
    block = pa.table({"who": who, "n": list(range(len(canaries))), BAD: reasons})
    sent = ipc(Masking(masks(who=method), KEYS).apply(block.slice(cut // 2), "f.csv"))
    for canary in canaries:
        assert canary is None or canary.encode() not in sent


def test_why_a_row_could_not_be_read_is_told_only_without_masks():
    block = pa.table({"who": ["a", None], BAD: [None, "line 2 holds 'secret'"]})
    assert Masking([], KEYS).apply(block, "f.csv")[BAD].to_pylist() == [None, "line 2 holds 'secret'"]
    told = Masking(masks(who="hash"), KEYS).apply(block, "f.csv")[BAD].to_pylist()
    assert told[0] is None and "withheld" in told[1] and "secret" not in told[1]


def test_masked_column_that_is_not_there_is_refused_by_name():
    with pytest.raises(DataError, match="column 'emial' is not there, did you mean 'email'"):
        Masking(masks(emial="drop"), KEYS).apply(pa.table({"email": ["x"]}), "f.csv")


@pytest.mark.parametrize(("environ", "what"), [({}, "is not set"), ({"MASKING_KEY": "geheim"}, "holds 6 bytes")])
def test_key_that_is_missing_or_short_is_refused_by_its_variable(environ, what):
    with pytest.raises(SpecError, match=f"environment variable MASKING_KEY {what}") as caught:
        read_keys(masks(who="hash"), environ)
    assert "geheim" not in str(caught.value)


def test_keys_are_read_only_where_a_mask_names_them():
    assert repr(read_keys(masks(who="redact", card="drop"), {})) == "MaskKeys()"


def test_keys_travel_and_never_show():
    keys = read_keys(masks(who="hash"), {"MASKING_KEY": KEY})
    assert pickle.loads(pickle.dumps(keys))["MASKING_KEY"] == KEY.encode()
    for shown in (repr(keys), str(keys), f"{keys}", keys.fingerprint()):
        assert KEY not in shown
    assert keys.fingerprint() == KEYS.fingerprint() != OTHER.fingerprint()


def test_error_of_a_reader_with_masks_does_not_quote_the_file():
    with pytest.raises(DataError) as caught, Masking(masks(who="hash")).guard("f.csv"):
        raise DataError("f.csv is not readable as CSV: expected 2 values, got 3: secret,1,2")
    assert "f.csv" in caught.value.message and "who" in caught.value.message
    assert "secret" not in str(caught.value) and caught.value.__suppress_context__


def test_error_of_a_reader_without_masks_is_passed_on():
    with pytest.raises(ValueError, match="secret"), Masking([]).guard("f.csv"):
        raise ValueError("secret")


def test_errors_that_quote_no_value_are_passed_on_with_masks():
    with pytest.raises(DataError, match="column 'x' is not there"), Masking(masks(who="hash")).guard("f.csv"):
        require(["x"], ["y"], "f.csv")
    with pytest.raises(StoreError, match="S3"), Masking(masks(who="hash")).guard("f.csv"):
        raise StoreError("S3 did not answer")
