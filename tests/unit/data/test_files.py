"""Which files a source names, and that what is read is what was listed."""

from __future__ import annotations

import gzip
import os
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.formats import csv, lines, parquet
from raypipe.data.sources import disk, web
from raypipe.data.sources import files as files_module
from raypipe.data.sources.files import DIGESTED_FILES, UnreadableFile, find, open_file, open_text, read_bytes
from raypipe.errors import SourceChanged, StoreError
from raypipe.pipeline.plan import source_fingerprint
from raypipe.spec.data import DataSpec
from raypipe.spec.sources import CsvSource, ParquetSource

CSV = CsvSource(format="csv", path="unused")
PARQUET = ParquetSource(format="parquet", path="unused")


def only(path):
    (file,) = find(str(path), ".", (".csv",))
    return file


# --- local files


def append(path):
    with open(path, "ab") as file:
        file.write(b"7\n")


def rewrite(path):
    data = path.read_bytes()
    path.write_bytes(b"9" * len(data))


def replace(path):
    """By a file of the same size and time."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"8" * stat.st_size)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)


@pytest.fixture
def aged(tmp_path):
    """Writes a file that was last changed a minute ago: clocks of file systems tick every few milliseconds."""

    def write(name, data):
        (tmp_path / name).write_bytes(data)
        then = time.time() - 60
        os.utime(tmp_path / name, (then, then))
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("change", "how"), [(append, "was written to"), (rewrite, "was written to"), (replace, "was replaced"),
                        (os.remove, "was deleted")]
)  # fmt: skip
@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.parquet"])
def test_local_file_that_changes_while_it_is_read_ends_the_reading_ten_times_of_ten(
    name, change, how, aged, monkeypatch
):
    # A part at a time, so that the file can change between two.
    monkeypatch.setattr(parquet, "MAX_ROWS", 1000)
    for part in ("LOOK_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(lines, part, 2**12)
    table = pa.table({"a": range(10_000)})
    text = b"a\n" + b"".join(b"%d\n" % i for i in range(10_000))
    if name == "f.parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=1000)
        data, read_file = sink.getvalue().to_pybytes(), partial(parquet.read_file, source=PARQUET)
    else:
        data = gzip.compress(text) if name == "f.csv.gz" else text
        read_file = partial(csv.read_file, source=CSV)
    for _ in range(10):
        path = aged(name, data)
        reading, read = read_file(only(path)), 0
        while read < 5000:
            read += next(reading).num_rows
        change(path)
        with pytest.raises(SourceChanged, match=rf"{name} {how} while this run read it") as caught:
            list(reading)
        assert "run again" in caught.value.hint


@pytest.mark.parametrize("digested_bytes", [2**20, 0])
@pytest.mark.parametrize("change", [append, rewrite, os.remove])
def test_local_file_that_changes_before_its_turn_is_not_read(change, digested_bytes, aged, monkeypatch):
    monkeypatch.setattr(files_module, "DIGESTED_BYTES", digested_bytes)  # small enough for a digest, or too large
    path = aged("f.csv", b"a\n1\n")
    file = only(path)
    assert read_bytes(file) == b"a\n1\n"
    change(path)
    for read in (read_bytes, open_file, open_text):
        with pytest.raises(SourceChanged, match=r"f\.csv was (written to|deleted)"):
            read(file)


def test_small_local_file_touched_or_copied_with_the_same_content_is_the_same_file(aged):
    path = aged("f.csv", b"a\n1\n")
    file = only(path)
    path.touch()
    assert read_bytes(file) == b"a\n1\n"
    os.remove(path)
    path.write_bytes(b"a\n1\n")
    with open_file(file) as handle:
        assert handle.read() == b"a\n1\n"


def test_local_file_that_cannot_be_opened_tells_why(tmp_path):
    (tmp_path / "f.csv").write_text("a\n")
    file = only(tmp_path / "f.csv")
    os.remove(tmp_path / "f.csv")
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(files_module.DataError, match=r"f\.csv cannot be read: Is a directory"):
        read_bytes(file)


def test_hundreds_of_local_files_are_listed_in_order(tmp_path):
    for number in range(800):
        folder = tmp_path / f"{number % 11}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:05}.csv").write_text(f"a\n{number}\n")
    found = find(".", str(tmp_path), (".csv",))
    assert len(found) == 800 and [file.name for file in found] == sorted(file.name for file in found)
    assert len({file.tag for file in found}) == 800
    assert find("**/*.csv", str(tmp_path), ()) == found
    assert find("3/*.csv", str(tmp_path), ()) == [file for file in found if file.name.startswith("3/")]


def test_source_fingerprint_is_of_names_and_content_not_of_place_order_on_disk_or_times(tmp_path):
    def of(folder, names, **changed):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(changed.get(name[0], f"a,y\n{name},2\n"))
        fields = {"source": {"format": "csv", "path": "*.csv"}, "target": "y", "root": str(tmp_path / folder)}
        return source_fingerprint(DataSpec.model_validate(fields))

    first = of("one", ["a.csv", "b.csv", "c.csv"])
    assert of("two", ["c.csv", "a.csv", "b.csv"]) == first
    assert of("three", ["a.csv", "b.csv"]) != first
    assert of("four", ["a.csv", "b.csv", "c.csv"], b="a,y\n1,2\n") != first


def large(folder, text="a,y\n1,2\n"):
    """A source of more files than are known by content, and its fingerprint."""
    folder.mkdir(parents=True)
    for number in range(DIGESTED_FILES + 1):
        (folder / f"{number:03}.csv").write_text(text)
    return folder / "007.csv", partial(fingerprint_of, folder)


def fingerprint_of(folder):
    fields = {"source": {"format": "csv", "path": "*.csv"}, "target": "y", "root": str(folder)}
    return source_fingerprint(DataSpec.model_validate(fields))


def overwrite(path):
    """By other content of the same size, whose time is set back."""
    stat = path.stat()
    path.write_bytes(b"9" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [append, rewrite, replace, overwrite, os.remove])
def test_file_of_a_large_source_that_changes_is_never_taken_for_the_old_one(change, tmp_path):
    path, fingerprint = large(tmp_path / "in")
    before = fingerprint()
    assert fingerprint() == before
    probe = path.with_name("probe.txt")
    while not probe.exists() or probe.stat().st_ctime_ns <= path.stat().st_ctime_ns:  # one step of the clock
        probe.write_text("x")
    change(path)
    assert fingerprint() != before


def test_file_that_changed_just_now_where_times_are_whole_seconds_is_not_taken_for_the_one_listed_before():
    def stat(ago_s, fraction_ns=0):
        second = (time.time_ns() // 10**9 - ago_s) * 10**9 + fraction_ns
        times = {name: second for name in ("st_mtime_ns", "st_ctime_ns")}
        return os.stat_result((0o100644, 7, 1, 1, 0, 0, 5, 0, 0, 0, *[second / 10**9] * 3, *[second] * 3), times)

    for settled in (stat(60), stat(0, 123_456_789)):
        assert disk.listed("f.csv", settled).tag == disk.listed("f.csv", settled).tag
    fresh = stat(0)
    first, second = disk.listed("f.csv", fresh), disk.listed("f.csv", fresh)
    assert first.tag != second.tag and first.pin == second.pin


def test_hundreds_of_files_are_listed_and_fingerprinted_without_reading_them(tmp_path):
    for number in range(600):
        (tmp_path / f"{number:05}.csv").write_bytes(b"a,y\n" + b"1,2\n" * 100)

    def bytes_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    fingerprint_of(tmp_path)  # modules are loaded
    before = bytes_read()
    fingerprint_of(tmp_path)
    found = find(".", str(tmp_path), (".csv",))
    assert bytes_read() - before < 100_000  # of 242 kB
    assert len(found) == 600 and sum(file.size_bytes or 0 for file in found) == 600 * 404


def test_file_of_a_job_folder_that_each_machine_unpacks_with_other_times_is_the_same_file(tmp_path):
    path, _ = large(tmp_path / "working_dir_files" / "_ray_pkg_0a1b" / "in")
    file = next(f for f in find(".", str(path.parent), (".csv",)) if f.uri == str(path))
    os.utime(path, (1, 1))
    assert read_bytes(file) == b"a,y\n1,2\n" and not file.digest
    append(path)
    with pytest.raises(SourceChanged):
        read_bytes(file)


def test_one_file_of_many_that_may_not_be_read_is_named(tmp_path, unprivileged):
    path, _ = large(tmp_path / "in")
    os.chmod(path, 0)
    with unprivileged():
        files = {file.name: file for file in find(".", str(path.parent), (".csv",))}
        assert len(files) == DIGESTED_FILES + 1
        with pytest.raises(UnreadableFile, match=r"in/007\.csv cannot be read: Permission denied"):
            list(csv.read_file(files["007.csv"], source=CSV))


def test_folder_that_may_not_be_listed_is_named(tmp_path, unprivileged):
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "a.csv").write_text("a\n")
    os.chmod(tmp_path / "in" / "closed", 0)
    with unprivileged(), pytest.raises(UnreadableFile, match="in/closed cannot be read: Permission denied"):
        find("in", str(tmp_path), (".csv",))


def test_file_whose_name_is_no_text_is_refused_with_its_bytes(tmp_path):
    (tmp_path / os.fsdecode(b"gr\xfcn.csv")).write_text("a\n")
    with pytest.raises(files_module.DataError, match=r"holds a file whose name is no UTF-8 text: b'gr\\xfcn\.csv'"):
        find(".", str(tmp_path), (".csv",))


# --- the web


@pytest.fixture
def site():
    """A server of one file: `content`, `headers`, and statuses that come before the next answers."""

    class Site(BaseHTTPRequestHandler):
        address = ""
        content, headers_of_file, failures, honours = b"a\n1\n", {"ETag": '"1"'}, [], True
        tells_length = True

        def do_GET(self):
            status = 200
            if Site.failures:
                status = Site.failures.pop(0)
            elif Site.honours and self.headers.get("if-match", Site.headers_of_file.get("ETag")) != (
                Site.headers_of_file.get("ETag")
            ):
                status = 412
            self.send_response(status)
            for name, value in Site.headers_of_file.items():
                self.send_header(name, value)
            if Site.tells_length:
                self.send_header("content-length", str(len(Site.content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(Site.content)

        do_HEAD = do_GET

        def log_message(self, format, *args):
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    Site.address = f"http://127.0.0.1:{server.server_port}/f.csv"
    yield Site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("before", "after", "honours"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, True),
        ({"ETag": '"1"'}, {"ETag": '"2"'}, False),
        ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}, False),
        (
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:01 GMT"},
            False,
        ),
    ],
)
def test_file_on_the_web_that_changes_before_it_is_read_ends_the_reading(before, after, honours, site):
    site.headers_of_file, site.honours = before, honours
    file = only(site.address)
    assert read_bytes(file) == b"a\n1\n"
    site.headers_of_file = after
    for read in (read_bytes, open_file, open_text):
        with pytest.raises(SourceChanged, match=r"f\.csv changed while this run read it"):
            read(file)


def test_file_on_the_web_without_any_tag_that_changes_its_size_ends_the_reading(site):
    site.headers_of_file = {}
    file = only(site.address)
    site.content = b"a\n1\n2\n"
    with pytest.raises(SourceChanged, match=r"f\.csv changed while this run read it"):
        read_bytes(file)


def test_file_on_the_web_without_any_tag_is_known_by_its_content(site):
    site.headers_of_file = {}
    file = only(site.address)
    assert read_bytes(file) == b"a\n1\n" and only(site.address) == file
    site.content = b"a\n2\n"
    assert only(site.address).tag != file.tag
    with pytest.raises(SourceChanged, match=r"f\.csv changed while this run read it"):
        read_bytes(file)


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {}])
def test_file_on_the_web_without_a_length_is_read_whole_and_its_size_is_told_only_where_it_is_known(headers, site):
    site.headers_of_file, site.tells_length = headers, False
    site.content = b"a\n" + b"1\n" * 100_000
    file = only(site.address)
    assert file.size_bytes == (None if headers else len(site.content))
    assert read_bytes(file) == site.content
    assert sum(table.num_rows for part in lines.ranges([file]) for table in csv.read_file(part, source=CSV)) == 100_000


def test_busy_web_server_is_asked_again_and_one_that_stays_so_is_told(site):
    site.failures = [503, 429]
    file = only(site.address)
    site.failures = [500]
    assert read_bytes(file) == b"a\n1\n"
    site.failures = [503] * 100
    with pytest.raises(StoreError, match="answered HTTP 503"):
        read_bytes(file)
    assert len(site.failures) == 100 - web.RETRY.max_attempts


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://h/f.csv?X-Amz-Signature=s3cret", "https://h/f.csv"),
        ("https://ann:s3cret@h/f.csv", "https://h/f.csv"),
        ("cannot reach https://ann:s3cret@h/f?k=s3cret today", "cannot reach https://h/f today"),
    ],
)
def test_address_is_told_without_what_may_be_secret(address, told):
    assert web.shown(address) == told
