"""API keys: who is let in, what a key is good for, how often, and how lines of keys are read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from raypipe.errors import RequestError, ServeError
from raypipe.serve import keys
from raypipe.serve.keys import Keys, digest_of, headers_of, line_of, new_key
from raypipe.spec.access import AuthSpec

# As new_key() makes them, but the same in every process that collects these tests.
ANN, BEN, ADA, NOBODY = (f"rp_{name * 10}{name}_-A"[:46] for name in ("Anna", "Bert", "Adah", "None"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves this module's time; a bucket fills by it, and a file is looked at again."""
    now = [1000.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def keys_of(monkeypatch: pytest.MonkeyPatch, text: str, own_digest: str = "") -> Keys:
    monkeypatch.setenv("MY_KEYS", text)
    return Keys.load(AuthSpec(keys_env="MY_KEYS"), own_digest)


def three(monkeypatch: pytest.MonkeyPatch) -> Keys:
    lines = [
        line_of(ANN, "ann", ["predict"]),
        line_of(BEN, "ben", ["predict", "admin"]),
        line_of(ADA, "ada", ["admin"]),
    ]
    return keys_of(monkeypatch, "\n".join(lines))


def refused(found: Keys, headers: dict[bytes, bytes], scope: str = "predict") -> RequestError:
    with pytest.raises(RequestError) as raised:
        found.check(headers, scope)
    return raised.value


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


def test_key_in_either_header_lets_in_and_is_named(monkeypatch: pytest.MonkeyPatch):
    found = three(monkeypatch)
    assert found.check(bearer(ANN), "predict") == "ann"
    assert found.check({b"authorization": f"bearer  {BEN} ".encode()}, "admin") == "ben"
    assert found.check({b"x-api-key": BEN.encode()}, "predict") == "ben"
    signed = {b"authorization": b"AWS4-HMAC-SHA256 Credential=x", b"x-api-key": ANN.encode()}
    assert found.check(signed, "predict") == "ann", "other clients sign what we do not read"
    assert found.check(headers_of([("authorization", f"Bearer {ANN}"), ("trace-bin", b"\x00\xff")]), "predict") == "ann"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic YTpi"},
        {b"authorization": ANN.encode()},
        {b"x-api-key": b""},
        {b"x-api-key": b"\xff\x00"},
        bearer(NOBODY),
        bearer(ANN[:-1]),
        bearer(ANN + "x"),
        bearer(ANN.upper()),
        bearer("x" * 100_000),
        {b"cookie": f"key={ANN}".encode()},
        {b"x-ray-authorization": f"Bearer {ANN}".encode()},
        {b"x-api-key": b"wrong", **bearer(ANN)},
    ],
    ids=str,
)
def test_anything_else_is_401_and_tells_how(headers: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch):
    error = refused(three(monkeypatch), headers)
    assert (error.status, error.headers) == (401, {"www-authenticate": "Bearer"})
    assert "Bearer KEY" in error.hint and ANN not in str(error)


def test_digest_of_a_key_is_no_key(monkeypatch: pytest.MonkeyPatch):
    assert refused(three(monkeypatch), bearer(digest_of(ANN))).status == 401


def test_key_without_the_scope_is_403_and_names_both(monkeypatch: pytest.MonkeyPatch):
    found = three(monkeypatch)
    for key, scope in ((ANN, "admin"), (ADA, "predict")):
        error = refused(found, bearer(key), scope)
        assert error.status == 403 and scope in error.message and key not in str(error)
    assert found.check({}, "open") == ""


def test_expired_key_is_401_and_one_that_will_expire_is_not(monkeypatch: pytest.MonkeyPatch):
    line = json.loads(line_of(ANN, "ann", ["predict"]))
    past = json.dumps({**line, "expires": "2020-01-01T00:00:00Z"})
    assert "expired" in refused(keys_of(monkeypatch, past), bearer(ANN)).message
    later = json.dumps({**line, "expires": "2999-01-01T00:00:00+02:00"})
    assert keys_of(monkeypatch, later).check(bearer(ANN), "predict") == "ann"


def test_rate_lets_the_burst_and_then_the_rate_through(monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]):
    found = keys_of(
        monkeypatch, line_of(ANN, "ann", ["predict"], rate=4, burst=3) + "\n" + line_of(BEN, "ben", ["predict"])
    )
    outcomes: list[bool] = []
    for _ in range(1000):
        with suppress(RequestError):
            outcomes.append(False)
            outcomes[-1] = bool(found.check(bearer(ANN), "predict"))
        clock(0.05)
    error = refused(found, bearer(ANN))
    assert error.status == 429 and error.headers == {"retry-after": "1"}
    assert outcomes[:3] == [True] * 3
    assert sum(outcomes) == pytest.approx(3 + 4 * 1000 * 0.05, abs=1)
    assert found.check(bearer(BEN), "predict") == "ben"


def test_refused_scope_takes_no_token(monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]):
    found = keys_of(monkeypatch, line_of(ANN, "ann", ["predict"], rate=0.1))
    for _ in range(5):
        assert refused(found, bearer(ANN), "admin").status == 403
    assert found.check(bearer(ANN), "predict") == "ann"
    assert refused(found, bearer(ANN)).headers == {"retry-after": "10"}


def test_file_that_changes_is_taken_up_within_a_second_and_a_damaged_one_is_not(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "keys.jsonl"
    file.write_text(line_of(ANN, "ann", ["predict"], rate=1) + "\n")
    found = Keys.load(AuthSpec(keys_file=str(file)))
    assert found.check(bearer(ANN), "predict") == "ann"

    file.write_text(line_of(ANN, "ann", ["predict"], rate=1) + "\n" + line_of(BEN, "ann", ["predict"], rate=1) + "\n")
    assert refused(found, bearer(BEN)).status == 401, "it is looked at once a second"
    clock(0.9)
    assert refused(found, bearer(ANN)).status == 429, "a new file gives nobody more"
    clock(1.1)
    assert found.check(bearer(BEN), "predict") == "ann"
    assert refused(found, bearer(ANN)).status == 429, "both keys of a name share its rate"

    for damaged in ("{", "", '{"name": "x"}', ANN):
        file.write_text(damaged)
        clock(1.1)
        assert found.check(bearer(BEN), "predict") == "ann"
    file.unlink()
    clock(1.1)
    said: list[logging.LogRecord] = []
    monkeypatch.setattr(keys.logger, "handle", said.append)
    assert found.check(bearer(ANN), "predict") == "ann"
    (record,) = said
    assert "the keys stay as they were" in record.getMessage() and ANN not in record.getMessage()

    file.write_text(json.dumps([json.loads(line_of(ADA, "ada", ["predict"]))]))
    clock(1.1)
    assert found.check(bearer(ADA), "predict") == "ada"
    assert refused(found, bearer(ANN)).status == 401


def test_own_key_of_a_deployment_is_taken_and_survives_a_new_file(tmp_path: Path, clock: Callable[[float], None]):
    file = tmp_path / "keys.jsonl"
    file.write_text(line_of(ANN, "ann", ["predict"]))
    own = new_key()
    found = Keys.load(AuthSpec(keys_file=str(file)), digest_of(own))
    file.write_text(line_of(BEN, "ben", ["predict"]))
    clock(2)
    assert found.check(bearer(BEN), "predict") == "ben"
    assert found.check(bearer(own), "predict") == keys.OWN_NAME
    assert refused(found, bearer(own), "admin").status == 403


def test_variable_and_file_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MY_KEYS", raising=False)
    with pytest.raises(ServeError, match="keys_env: MY_KEYS is not set") as raised:
        Keys.load(AuthSpec(keys_env="MY_KEYS"))
    assert "before Ray starts" in raised.value.hint
    with pytest.raises(ServeError, match=r"absent\.jsonl cannot be read: No such file"):
        Keys.load(AuthSpec(keys_file=str(tmp_path / "absent.jsonl")))


GOOD = json.loads(line_of(ANN, "ann", ["predict"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        (" \n\n", "holds no key"),
        ("[]", "holds no key"),
        (ANN, "not one JSON object a line"),
        ("[1, 2", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        ("7", "key 1: the object"),
        (json.dumps({**GOOD, "sha256": ANN}), "key 1: sha256: must be 64 hex digits"),
        (json.dumps({**GOOD, "sha256": "A" * 64}), "key 1: sha256: must be 64 hex digits"),
        (json.dumps({**GOOD, "key": ANN}), "key 1: key: is not a known field"),
        (json.dumps({**GOOD, "name": ANN}), "key 1: name: must be 1 to 63|key 1: name: "),
        ("\n" + json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "scopes": ["root"]}), "key 3: scopes.0"),
        (json.dumps({**GOOD, "scopes": []}), "key 1: scopes"),
        (json.dumps({**GOOD, "rate": 0}), "key 1: rate"),
        (json.dumps({**GOOD, "rate": -1}), "key 1: rate"),
        (json.dumps({**GOOD, "expires": "2020-01-01T00:00:00"}), "key 1: expires"),
        (json.dumps([GOOD] * 1001), "holds 1001 keys; at most 1000"),
    ],
)
def test_line_that_is_not_as_it_must_be_is_refused_without_showing_it(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ServeError, match=words) as raised:
        keys_of(monkeypatch, text)
    assert ANN not in str(raised.value) and GOOD["sha256"] not in str(raised.value)


def test_file_that_is_large_or_no_text_is_refused(tmp_path: Path):
    file = tmp_path / "keys"
    for content, words in ((b" " * (keys.MAX_FILE_BYTES + 1), "larger than"), (b"\xff\xfe", "is no text")):
        file.write_bytes(content)
        with pytest.raises(ServeError, match=words):
            Keys.load(AuthSpec(keys_file=str(file)))
    with pytest.raises(ServeError, match="cannot be read: Is a directory"):
        Keys.load(AuthSpec(keys_file=str(tmp_path)))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ServeError, match="is no file"):
        Keys.load(AuthSpec(keys_file=str(tmp_path / "pipe")))


def test_each_digest_is_compared_whichever_is_the_one(monkeypatch: pytest.MonkeyPatch):
    found = three(monkeypatch)
    compared: list[int] = []
    compare = keys.hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(1)
        return compare(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", counted)
    for key in (ANN, BEN, ADA):
        compared.clear()
        found._find(key.encode())
        assert len(compared) == 3
