"""Files at web addresses: read as from a folder, and no address may hold a secret."""

from __future__ import annotations

import gzip
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raypipe.data.formats import idx
from raypipe.data.sources.files import find
from raypipe.data.sources.listing import list_files
from raypipe.errors import DataError, SpecError, StoreError
from raypipe.spec.load import parse_pipeline
from raypipe.spec.sources import IdxSource
from tests.unit.data.helpers import reader
from tests.unit.data.test_formats import IMAGES, idx_bytes


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; what lies in `encoded/` it declares to be compressed for the way only."""

    def end_headers(self):
        if self.path.startswith("/encoded/"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()

    def log_message(self, format, *args):
        del format, args


@pytest.fixture
def web(tmp_path):
    """Address of a loopback server over a folder."""
    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_idx_over_http_is_read_and_what_is_missing_is_refused_by_address(tmp_path, web):
    (tmp_path / "web" / "i.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)))
    (tmp_path / "web" / "l").write_bytes(idx_bytes(np.zeros(2, np.uint8)))
    source = IdxSource(format="idx", images="i.gz", labels="l")
    images, labels = list_files(source, web)
    assert (images.name, labels.size_bytes) == ("i.gz", 10)
    assert idx.read_pair(idx.Pair(images, labels))[0].num_rows == 2
    with pytest.raises(DataError, match=r"/gone answered HTTP 404"):
        list_files(source.model_copy(update={"labels": "gone"}), web)
    with pytest.raises(StoreError, match="did not answer"):
        find("x", "http://127.0.0.1:1", ())


def test_csv_jsonl_and_parquet_over_http_are_read_as_from_a_folder(tmp_path, web):
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    parts = {
        "f.csv": (b"a,b\n1,x\n2,y\n", reader("csv")),
        "f.csv.gz": (gzip.compress(b"a,b\n1,x\n2,y\n"), reader("csv")),
        "f.jsonl": (b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', reader("jsonl")),
        "f.jsonl.gz": (gzip.compress(b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n'), reader("jsonl")),
        "f.parquet": (None, reader("parquet")),
    }
    pq.write_table(table, tmp_path / "web" / "f.parquet")
    for name, (data, read_file) in parts.items():
        if data is not None:
            (tmp_path / "web" / name).write_bytes(data)
        (file,) = find(name, web, ())
        assert (file.name, file.size_bytes) == (name, (tmp_path / "web" / name).stat().st_size)
        assert pa.concat_tables(read_file(file)).to_pydict() == table.to_pydict(), name


def test_gzip_that_the_server_undoes_on_the_way_is_read(tmp_path, web):
    (tmp_path / "web" / "encoded").mkdir()
    (tmp_path / "web" / "encoded" / "f.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    (file,) = find("encoded/f.csv.gz", web, ())
    (table,) = reader("csv")(file)
    assert table.to_pydict() == {"a": [1]}


def test_gzip_over_http_that_is_cut_short_is_refused_by_name(tmp_path, web):
    data = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    (tmp_path / "web" / "f.csv.gz").write_bytes(data[: len(data) // 2])
    (file,) = find("f.csv.gz", web, ())
    with pytest.raises(DataError, match=r"f\.csv\.gz is not readable"):
        list(reader("csv")(file))


def test_address_that_is_none_is_refused():
    with pytest.raises(DataError, match="is no address"):
        find("http://127.0.0.1:port/f.csv", ".", ())


@pytest.mark.parametrize(
    ("fields", "shown", "why"),
    [
        ({"path": "https://ann:s3cret@host/f.csv"}, "https://host/f.csv", "user name or password"),
        ({"path": ["a.csv", "s3://KEY:s3cret@bucket/f.csv"]}, "s3://bucket/f.csv", "user name or password"),
        ({"path": "HTTPS://host/f.csv?token=s3cret"}, "HTTPS://host/f.csv", "query"),
        ({"path": "f.csv", "root": "https://s3cret@host"}, "https://host", "user name or password"),
        ({"path": "f.csv?token=s3cret", "root": "https://host/"}, "https://host//f.csv", "query"),
        ({"format": "idx", "images": "https://host/i?k=s3cret", "labels": "l"}, "https://host/i", "query"),
    ],
)
def test_address_that_could_hold_a_secret_is_refused_without_showing_it(fields, shown, why):
    root = fields.pop("root", None)
    values = {"name": "n", "data": {"root": root, "target": "y", "source": {"format": "csv", **fields}}}
    with pytest.raises(SpecError) as caught:
        parse_pipeline(yaml.safe_dump({**values, "model": {"kind": "linear"}}))
    assert f"{shown} is written with" in str(caught.value) and why in str(caught.value)
    assert "s3cret" not in str(caught.value)
