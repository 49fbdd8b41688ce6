"""A real S3 server against the store contract, and every way not to reach one."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import replace

import pytest

from raypipe.errors import ObjectMissing, StoreAccessError, StoreError
from raypipe.storage import objects, open_store
from raypipe.storage import s3 as s3_module
from raypipe.storage.publish import copy_published, publish, read_published
from raypipe.testing.contracts import StoreContract
from raypipe.testing.faults import silent_port
from tests.integration.conftest import S3Address, S3Server

pytestmark = pytest.mark.s3

_numbers = itertools.count()


@pytest.fixture(scope="module")
def one_bucket(s3: S3Server) -> str:
    """One for all tests here: SeaweedFS sets volumes aside for each bucket."""
    return s3.bucket()


@pytest.fixture
def uri(one_bucket: str) -> str:
    """An empty prefix of this test alone."""
    return f"s3://{one_bucket}/t{next(_numbers)}/deeper"


SECRET = "not-the-right-secret-7f3a"


@pytest.mark.parametrize("check", StoreContract.checks())
def test_s3_store_holds_the_contract(uri: str, check: str):
    getattr(StoreContract(open_store(uri)), check)()


def test_s3_store_without_prefix_uses_the_whole_bucket(one_bucket: str, s3: S3Server):
    open_store(f"s3://{one_bucket}").write("a/b", b"x")
    with contextlib.closing(s3.client()) as client:
        assert client.get_object(Bucket=one_bucket, Key="a/b")["Body"].read() == b"x"


def test_s3_store_under_a_prefix_sees_nothing_beside_it(uri: str):
    open_store(f"{uri}/one").write("a", b"1")
    open_store(f"{uri}/one-more").write("a", b"2")
    assert [info.key for info in open_store(f"{uri}/one").list("")] == ["a"]
    with pytest.raises(ObjectMissing):
        open_store(f"{uri}/two").read("a")


def test_published_files_in_s3_come_back_checked(uri: str):
    store = open_store(uri)
    files = {"weights.safetensors": bytes(6 * 2**20), "artifact.json": b"{}"}
    digest = publish(store, "m/a", files).digest
    copy_published(store, "m/a", "m/b", digest=digest)
    assert read_published(store, "m/b", digest=digest) == files


def test_bucket_that_does_not_exist_is_an_error_that_names_it(s3: S3Server):
    store = open_store("s3://no-such-bucket-9c1/prefix")
    for action in (store.check, lambda: list(store.list("a")), lambda: store.read("a")):
        with pytest.raises(StoreAccessError, match="bucket 'no-such-bucket-9c1' does not exist") as caught:
            action()
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_an_error_that_tells_where_to_look_and_no_secret(
    uri: str, wrong: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(wrong, SECRET)
    store = open_store(uri)
    for action in (store.check, lambda: list(store.list("a")), lambda: store.read("a"), lambda: store.exists("a")):
        with pytest.raises(StoreAccessError, match="access denied") as caught:
            action()
        assert "AWS_ACCESS_KEY_ID" in caught.value.hint
        assert SECRET not in str(caught.value)


def test_missing_credentials_are_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreAccessError, match="no AWS credentials found"):
        open_store("s3://bucket/p")


def assert_told_in_time(address: S3Address, *, within_s: float) -> None:
    store = open_store("s3://bucket/p")
    start = time.monotonic()
    with pytest.raises(StoreError, match="S3 did not answer") as caught:
        store.check()
    assert time.monotonic() - start < within_s
    assert (caught.value.exit_code, caught.value.transient) == (4, True)
    assert "AWS_ENDPOINT_URL" in caught.value.hint
    assert address.secret_key not in str(caught.value)
    assert address.access_key not in str(caught.value)


def test_endpoint_where_nobody_listens_is_told_in_time(
    free_port: int, s3_address: S3Address, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    assert_told_in_time(s3_address, within_s=25)


def test_endpoint_that_never_answers_is_told_in_time(s3_address: S3Address, monkeypatch: pytest.MonkeyPatch):
    # A tenth of each budget, and so of the time until it is told.
    monkeypatch.setattr(s3_module, "SILENCE_TIMEOUT", s3_module.SILENCE_TIMEOUT / 10)
    monkeypatch.setitem(s3_module.FEW_RETRIES, "retry_timeout", s3_module.FEW_RETRIES["retry_timeout"] / 10)
    monkeypatch.setattr(objects, "_RETRY", replace(objects._RETRY, deadline_s=objects._RETRY.deadline_s / 10))
    with silent_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        assert_told_in_time(s3_address, within_s=4)
