"""What only a folder can do wrong: a full disk, no permission, two processes at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.errors import ObjectChanged, ObjectMissing, StoreAccessError
from raypipe.storage import open_store
from raypipe.storage.local import LOCKS, LocalFolder

COUNT = """
import sys
from raypipe.errors import ObjectChanged
from raypipe.storage import open_store
store = open_store(sys.argv[1])
done = 0
while done < 100:
    data, etag = store.read_with_etag("count")
    try:
        store.write_if_unchanged("count", str(int(data) + 1).encode(), etag)
        done += 1
    except ObjectChanged:  # the other process was first: read again
        pass
"""


def test_write_on_a_full_disk_is_an_error_that_says_so_and_keeps_the_old_object(small_disk: Path):
    store = LocalFolder(str(small_disk / "store"))
    store.write("a", b"old")
    with pytest.raises(StoreAccessError, match="no space left on the disk") as caught:
        store.write("a", bytes(8 * 2**20))
    assert caught.value.exit_code == 2
    assert store.read("a") == b"old"


def test_store_on_a_path_below_a_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreAccessError, match="folder cannot be made"):
        open_store(str(tmp_path / "file" / "store"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_without_permission_is_an_error_that_names_the_store(tmp_path: Path):
    store = LocalFolder(str(tmp_path / "store"))
    store.write("a/a", b"x")
    (tmp_path / "store").chmod(0o500)
    with pytest.raises(StoreAccessError, match=r"access denied|cannot be written"):
        store.write("a/b", b"x")


def test_write_where_a_file_is_in_the_way_is_an_error_that_names_the_key(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    store.write("a", b"x")
    with pytest.raises(StoreAccessError, match="a/b"):
        store.write("a/b", b"x")


@pytest.mark.thorough
def test_write_if_unchanged_by_several_processes_loses_no_count(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    store.write("count", b"0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert store.read("count") == b"300"


def test_write_if_unchanged_refuses_a_tag_from_before_two_writes_of_equal_size(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    for i in range(0, 150, 3):  # within one tick of the clock inode, time and size of a file come back
        store.write("a", f"{i:06d}".encode())
        _, stale = store.read_with_etag("a")
        store.write("a", f"{i + 1:06d}".encode())
        store.write("a", f"{i + 2:06d}".encode())
        with pytest.raises(ObjectChanged):
            store.write_if_unchanged("a", b"lost", stale)


def test_list_hides_the_lock_files(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    store.write("a/b", b"1")
    store.write_if_unchanged("a/b", b"2", store.read_with_etag("a/b")[1])
    assert (tmp_path / LOCKS).is_dir()
    assert [info.key for info in store.list("")] == ["a/b"]


def test_folder_that_is_not_there_is_an_empty_store_and_stays_away_until_something_is_written(tmp_path: Path):
    store = LocalFolder(str(tmp_path / "store"))
    assert list(store.list("models")) == [] and list(store.list("")) == [] and not store.exists("a")
    store.delete("a")
    for read in (store.read, store.read_with_etag):
        with pytest.raises(ObjectMissing, match="store/a does not exist"):
            read("a")
    assert list(tmp_path.iterdir()) == []
    LocalFolder(str(tmp_path / "store")).write("a", b"by another process")
    assert store.read("a") == b"by another process" and store.exists("a")


@pytest.mark.parametrize("first", ["write", "write_if_absent", "check"])
def test_folder_made_by_its_first_write_is_private(tmp_path: Path, first: str):
    store = LocalFolder(str(tmp_path / "new" / "store"))
    before = os.umask(0)
    try:
        getattr(store, first)(*(() if first == "check" else ("a", b"x")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "store").stat().st_mode) == 0o700


def test_folder_that_was_there_keeps_its_permissions(tmp_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o755)
    LocalFolder(str(tmp_path / "store")).write("a", b"x")
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o755


def test_write_if_unchanged_in_a_folder_that_is_not_there_is_lost(tmp_path: Path):
    with pytest.raises(ObjectChanged):
        LocalFolder(str(tmp_path / "store")).write_if_unchanged("a", b"x", "tag")


def test_folder_has_the_layout_it_would_have_in_s3(tmp_path: Path):
    store = LocalFolder(f"{tmp_path}/store")
    store.write("models/digits/versions/1/version.json", b"{}")
    assert (tmp_path / "store/models/digits/versions/1/version.json").read_bytes() == b"{}"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "ftp://host", "s4://b"])
def test_open_store_of_an_unknown_kind_is_an_error_that_names_the_kinds(uri: str):
    with pytest.raises(StoreAccessError, match=r"is not supported\ntry: a folder, or s3://bucket/prefix"):
        open_store(uri)


def test_open_store_without_a_bucket_is_an_error():
    with pytest.raises(StoreAccessError, match="names no bucket"):
        open_store("s3://")


def test_open_store_without_an_address_uses_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPIPE_STORE", str(tmp_path / "there"))
    assert open_store().uri == str(tmp_path / "there")
    monkeypatch.delenv("RAYPIPE_STORE")
    monkeypatch.chdir(tmp_path)
    assert open_store().uri == str(tmp_path / ".raypipe")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the store, with something in it that is nobody's object."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.json").write_text("mine")
    return tmp_path / "outside"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_link_that_leads_out_of_the_store_is_not_followed(tmp_path: Path, outside: Path, kind: str):
    store = LocalFolder(str(tmp_path / "store"))
    store.write("runs/a/x", b"1")
    link = tmp_path / "store" / "runs" / "b"
    key = "runs/b/secret.json" if kind == "folder" else "runs/b"
    link.symlink_to(outside if kind == "folder" else outside / "secret.json")
    actions = [
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: store.write_if_absent(f"runs/b/{kind}", b"x"),
        lambda: store.write_if_unchanged(key, b"x", "tag"),
        lambda: store.exists(key),
        lambda: store.delete(key),
    ]
    for action in actions:
        with pytest.raises(StoreAccessError, match="runs/b is a symbolic link that leads out of the store"):
            action()
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("secret.json", "mine")]


def test_list_and_delete_below_a_link_that_leads_out_touch_nothing_there(tmp_path: Path, outside: Path):
    store = LocalFolder(str(tmp_path / "store"))
    store.write("runs/a/x", b"1")
    (tmp_path / "store" / "runs" / "b").symlink_to(outside)
    for prefix in ("", "runs", "runs/b"):
        with pytest.raises(StoreAccessError, match="symbolic link"):
            list(store.list(prefix))
    with pytest.raises(StoreAccessError, match="symbolic link"):
        store.delete_prefix("runs")
    assert (outside / "secret.json").read_text() == "mine"


def test_lock_file_that_is_a_link_is_not_followed(tmp_path: Path, outside: Path):
    store = LocalFolder(str(tmp_path / "store"))
    store.write("a", b"1")
    store.write_if_unchanged("a", b"2", store.read_with_etag("a")[1])
    (lock,) = (tmp_path / "store" / LOCKS).iterdir()
    lock.unlink()
    lock.symlink_to(outside / "secret.json")
    with pytest.raises(StoreAccessError):
        store.write_if_unchanged("a", b"3", store.read_with_etag("a")[1])
    assert (outside / "secret.json").read_text() == "mine"


def test_store_folder_that_is_a_link_itself_and_links_inside_work(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = LocalFolder(str(tmp_path / "store"))
    store.write("a/x", b"1")
    (tmp_path / "disk" / "b").symlink_to(tmp_path / "disk" / "a")
    assert store.read("b/x") == b"1"
    assert "a/x" in [info.key for info in store.list("")]
