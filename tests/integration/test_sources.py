"""Sources in a real S3 bucket: what is listed is what is read, also from a slow server, and with few requests."""

from __future__ import annotations

import contextlib
import gzip
import random
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from raypipe.data.formats import arrow, csv, lines, parquet
from raypipe.data.formats.parts import FileRange
from raypipe.data.sources import ranged
from raypipe.data.sources.files import find, open_file, read_bytes
from raypipe.errors import DataError, SourceChanged, StoreAccessError
from raypipe.spec.sources import ArrowSource, CsvSource, ParquetSource
from raypipe.testing.faults import ThrottlingProxy

pytestmark = pytest.mark.s3

ROWS, FEW = 200_000, 40_000
TABLE = pa.table(
    {"id": np.arange(ROWS), "x": np.random.default_rng(0).normal(size=ROWS), "c": [f"c{i % 9}" for i in range(ROWS)]}
)
PARQUET = ParquetSource(format="parquet", path="unused")
ARROW = ArrowSource(format="arrow", path="unused")
CSV = CsvSource(format="csv", path="unused")
SECRETS = ("not-the-secret-4f", "not-the-key-9c")


@pytest.fixture(scope="module")
def one_bucket(s3):
    """One for all tests here: SeaweedFS sets volumes aside for each bucket."""
    return s3.bucket()


@pytest.fixture
def put(s3, one_bucket):
    with contextlib.closing(s3.client()) as client:
        yield lambda key, data: client.put_object(Bucket=one_bucket, Key=key, Body=data)


@pytest.fixture
def through(s3, monkeypatch):
    """A proxy before the server, which everything goes through from then on."""
    with contextlib.ExitStack() as stack:

        def start(**faults):
            proxy = stack.enter_context(ThrottlingProxy(s3.port, **faults))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
            return proxy

        yield start


def parquet_bytes(table, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def csv_bytes(table):
    sink = pa.BufferOutputStream()
    pacsv.write_csv(table, sink)
    return sink.getvalue().to_pybytes()


def arrow_bytes(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=FEW // 20)
    return sink.getvalue().to_pybytes()


def only(uri, suffixes=(".csv", ".parquet")):
    (file,) = find(uri, ".", suffixes)
    return file


def test_object_written_anew_between_two_row_groups_ends_the_reading_ten_times_of_ten(one_bucket, put):
    new = parquet_bytes(TABLE.slice(1), row_group_size=ROWS // 10)
    for _ in range(10):
        put("d5.parquet", parquet_bytes(TABLE, row_group_size=ROWS // 10))
        file = only(f"s3://{one_bucket}/d5.parquet")
        first, second = FileRange(file, 0, 0, 5), FileRange(file, 0, 5, 10)  # as two tasks share a large file
        assert sum(table.num_rows for table in parquet.read_file(first, source=PARQUET)) == ROWS // 2
        put("d5.parquet", new)
        with pytest.raises(SourceChanged, match=r"d5\.parquet was written anew while this run read it") as caught:
            list(parquet.read_file(second, source=PARQUET))
        assert "run again" in caught.value.hint and not caught.value.transient


@pytest.mark.parametrize("name", ["d5.csv", "d5.arrow", "d5.csv.gz"])
def test_object_written_anew_in_the_middle_of_reading_ends_it_ten_times_of_ten(name, one_bucket, put, monkeypatch):
    for part in ("FIRST_BYTES", "MAX_BYTES", "AHEAD_FROM_BYTES"):
        monkeypatch.setattr(ranged, part, 2**16)  # so that half of this small file is not yet on its way
    for part in ("LOOK_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(lines, part, 2**16)
    encode = {"d5.csv": csv_bytes, "d5.arrow": arrow_bytes, "d5.csv.gz": lambda t: gzip.compress(csv_bytes(t), 1)}[name]
    data, new = encode(TABLE.slice(0, FEW)), encode(TABLE.slice(1, FEW))
    read_file = partial(arrow.read_file, source=ARROW) if name == "d5.arrow" else partial(csv.read_file, source=CSV)
    for _ in range(10):
        put(name, data)
        reading, read = read_file(only(f"s3://{one_bucket}/{name}", (".csv", ".arrow", ".gz"))), 0
        while read < FEW // 2:
            read += next(reading).num_rows
        put(name, new)
        with pytest.raises(SourceChanged, match=f"{name} was written anew while this run read it"):
            list(reading)


def test_object_written_anew_before_its_turn_ends_the_reading_ten_times_of_ten(one_bucket, put):
    for number in range(10):
        for name in ("a", "b"):
            put(f"turn/{name}.csv", csv_bytes(TABLE.slice(0, 100)))
        first, second = find(f"s3://{one_bucket}/turn", ".", CsvSource.suffixes)
        assert sum(table.num_rows for table in csv.read_file(first, source=CSV)) == 100
        put("turn/b.csv", csv_bytes(TABLE.slice(number + 1, 100)))
        with pytest.raises(SourceChanged, match=r"turn/b\.csv"):
            list(csv.read_file(second, source=CSV))


def test_object_that_is_deleted_while_it_is_read_is_told_as_such(s3, one_bucket, put):
    put("gone.csv", b"a\n1\n")
    file = only(f"s3://{one_bucket}/gone.csv")
    with contextlib.closing(s3.client()) as client:
        client.delete_object(Bucket=one_bucket, Key="gone.csv")
    with pytest.raises(SourceChanged, match=r"gone\.csv was deleted"):
        read_bytes(file)


def test_object_in_several_parts_and_of_an_odd_name_is_read_whole(s3, one_bucket):
    data = random.Random(0).randbytes(12 * 2**20)
    for key in ("multi/part.csv", "multi/ä b+c#1%20&=.csv"):
        with contextlib.closing(s3.client()) as client:
            upload = client.create_multipart_upload(Bucket=one_bucket, Key=key)["UploadId"]
            where = {"Bucket": one_bucket, "Key": key, "UploadId": upload}
            parts = [
                {"PartNumber": i + 1, "ETag": client.upload_part(**where, PartNumber=i + 1, Body=piece)["ETag"]}
                for i, piece in enumerate((data[: 6 * 2**20], data[6 * 2**20 :]))
            ]
            client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        listed = {file.name: file for file in find(f"s3://{one_bucket}/multi", f"s3://{one_bucket}", (".csv",))}
        named = only(f"s3://{one_bucket}/{key}")
        assert listed[key].tag == named.tag
        assert read_bytes(listed[key]) == read_bytes(named) == data


def test_slow_and_throttling_server_loses_no_rows_and_gets_few_requests_more(one_bucket, put, through):
    objects = {f"slow/{i}.csv": csv_bytes(TABLE.slice(i * 5000, 5000)) for i in range(20)}
    objects["slow/big.parquet"] = parquet_bytes(TABLE, row_group_size=ROWS // 10)
    for key, data in objects.items():
        put(key, data)

    def epoch():
        files = [*find(f"s3://{one_bucket}/slow/*.csv", ".", ()), only(f"s3://{one_bucket}/slow/big.parquet")]
        readers = [csv.read_file(file, source=CSV) for file in files[:-1]]
        tables = [table for reader in readers for table in reader]
        return pa.concat_tables(tables), pa.concat_tables(parquet.read_file(files[-1], source=PARQUET))

    calm = through()
    expected = epoch()
    slow = through(refused_frac=0.3, latency_s=0.1)
    found = epoch()
    assert [table.num_rows for table in found] == [100_000, ROWS]
    assert found == expected and calm.num_refused == 0
    assert 0.2 < slow.num_refused / slow.num_requests < 0.4
    assert slow.num_requests <= 1.5 * calm.num_requests, (slow.num_requests, calm.num_requests)


def test_parquet_file_is_read_with_no_more_requests_than_arrow_makes(one_bucket, put, through):
    put("few.parquet", parquet_bytes(TABLE, row_group_size=ROWS // 4))
    for names in (None, ["x"]):
        arrows, ours = through(), through()
        filesystem = pafs.S3FileSystem(endpoint_override=f"127.0.0.1:{arrows.port}", scheme="http", region="us-east-1")
        with filesystem.open_input_file(f"{one_bucket}/few.parquet") as handle, pq.ParquetFile(handle) as theirs:
            expected = pa.concat_tables(pa.Table.from_batches([b]) for b in theirs.iter_batches(columns=names))
        source = ParquetSource(format="parquet", path="unused", columns=names)
        found = pa.concat_tables(parquet.read_file(only(f"s3://{one_bucket}/few.parquet"), source=source))
        assert found.num_rows == expected.num_rows == ROWS
        assert 0 < ours.num_requests <= arrows.num_requests, (names, ours.num_requests, arrows.num_requests)


def test_small_object_costs_one_request_after_the_listing(one_bucket, put, through):
    for number in range(5):
        put(f"small/{number}.png", b"x" * 1000)
    files = find(f"s3://{one_bucket}/small", ".", (".png",))
    proxy = through()
    assert [len(read_bytes(file)) for file in files] == [1000] * 5
    assert proxy.num_requests == 5


def test_folder_in_a_bucket_is_read_without_what_programs_keep_for_themselves(put, one_bucket):
    for key in ("_in/a.csv", "_in/b/c.csv", "_in/_temporary/0/part.csv", "_in/b/.hidden/c.csv"):
        put(key, b"x\n1\n")
    found = find(f"s3://{one_bucket}/_in/", ".", (".csv",))
    assert [file.uri for file in found] == [f"s3://{one_bucket}/_in/a.csv", f"s3://{one_bucket}/_in/b/c.csv"]


def test_more_objects_than_one_page_are_all_listed(one_bucket, put, through):
    for number in range(1203):
        put(f"many/{number % 7}/{number:05}.csv", b"a\n1\n")
    proxy = through()
    folder = find(f"s3://{one_bucket}/many", f"s3://{one_bucket}", CsvSource.suffixes)
    assert len({file.uri for file in folder}) == 1203 and proxy.num_requests <= 4
    assert [file.name for file in folder] == sorted(file.name for file in folder)
    assert find(f"s3://{one_bucket}/many/**/*.csv", f"s3://{one_bucket}", ()) == folder
    third = find(f"s3://{one_bucket}/many/3/*.csv", f"s3://{one_bucket}", ())
    assert third == [file for file in folder if file.name.startswith("many/3/")] and len(third) == 172


def test_folder_marks_are_no_files(one_bucket, put):
    for key, data in (("marks/", b""), ("marks/deep/", b""), ("marks/deep/er/", b""), ("marks/deep/er/f.csv", b"a\n")):
        put(key, data)
    assert [file.name for file in find(f"s3://{one_bucket}/marks/**", f"s3://{one_bucket}", ())] == [
        "marks/deep/er/f.csv"
    ]


def test_bucket_folder_and_glob_that_hold_nothing_are_refused_by_name(one_bucket, put):
    put("other/notes.md", b"x")
    for path, match in (
        ("other", r"holds no \.csv .* 1 \.md"),
        ("none", "matches no file"),
        ("none/*.csv", "matches no file"),
    ):
        with pytest.raises(DataError, match=match):
            find(f"s3://{one_bucket}/{path}", ".", (".csv",))
    for uri in ("s3:///f.csv", "s3://b-*/f.csv"):
        with pytest.raises(DataError, match="names no bucket"):
            find(uri, ".", (".csv",))


@pytest.mark.parametrize("names", [["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID"], []])
def test_refused_credentials_are_told_without_any_of_them(names, one_bucket, put, s3_address, monkeypatch):
    put("kept.csv", b"a\n1\n")
    file = only(f"s3://{one_bucket}/kept.csv")
    for name, value in zip(names, SECRETS, strict=False):
        monkeypatch.setenv(name, value)
    if not names:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for action in (
        lambda: find(file.uri, ".", ()),
        lambda: find(f"s3://{one_bucket}/*.csv", ".", ()),
        lambda: read_bytes(file),
    ):
        with pytest.raises(StoreAccessError, match="access denied") as caught:
            action()
        told = str(caught.value)
        assert "AWS_ACCESS_KEY_ID" in caught.value.hint
        assert not any(word in told for word in (*SECRETS, s3_address.secret_key, s3_address.access_key))


def test_object_is_sought_through_as_a_file(one_bucket, put):
    data = random.Random(1).randbytes(3 * 2**20)
    put("seek.bin", data)
    draw = random.Random(2)
    with open_file(only(f"s3://{one_bucket}/seek.bin")) as handle:
        assert handle.size() == len(data)
        for _ in range(50):
            start, size = draw.randrange(len(data)), draw.randrange(2**19)
            handle.seek(start)
            assert handle.read(size) == data[start : start + size]
