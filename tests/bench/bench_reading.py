"""How many slow files are read at once; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_reading.py [CPUS [FILES [FILE_MIB]]]

FILES Parquet files (default 30) of FILE_MIB MiB (default 32) from a server on loopback that takes its time with every
one, read as raypipe.data.stage.prepare reads them, on a Ray of CPUS logical CPUs (default 8) and the object store Ray
gives itself, whose workers are up: as many files as CPUs are read before.  `at_once`: the most answers the server had
under way, of files of which it had sent nothing yet.  Bar: 7 of 8.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ANSWER_S = 2.0
ROW_BYTES = 8 * 10


class SlowFiles(BaseHTTPRequestHandler):
    """The same file under every name."""

    body = b""
    lock = threading.Lock()
    active = at_once = 0

    def do_HEAD(self) -> None:
        """What listing asks for."""
        self._head()

    def do_GET(self) -> None:
        """Takes ANSWER_S."""
        with self.lock:
            SlowFiles.active += 1
            SlowFiles.at_once = max(self.active, self.at_once)
        time.sleep(ANSWER_S)
        with self.lock:
            SlowFiles.active -= 1
        self._head()
        self.wfile.write(self.body)

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("ETag", '"1"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def main(num_cpus: int, num_files: int, file_mib: int) -> None:
    rows = file_mib * 2**20 // ROW_BYTES
    random = np.random.default_rng(0)
    columns = {f"x{i}": random.normal(size=rows) for i in range(ROW_BYTES // 8)}
    sink = io.BytesIO()
    pq.write_table(pa.table({**columns, "y": np.arange(rows) % 2}), sink, use_dictionary=False, compression="none")
    SlowFiles.body = sink.getvalue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowFiles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        os.environ.update(HOME=folder, RAY_TMPDIR=tempfile.mkdtemp(prefix="rp"), RAY_DATA_DISABLE_PROGRESS_BARS="1")
        import ray

        from raypipe.data.shuffle.read_all import blocks_of, unread
        from raypipe.spec.data import DataSpec

        ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
        for name, num in (("few", num_cpus), ("all", num_files)):
            places = [f"http://127.0.0.1:{server.server_port}/{name}-{number}.parquet" for number in range(num)]
            fields = {"source": {"format": "parquet", "path": places}, "target": "y"}
            SlowFiles.at_once = 0
            start = time.perf_counter()
            spec = DataSpec.model_validate(fields)
            num_bytes = sum(
                block.num_bytes for block in blocks_of([(unread(part, spec), part) for part in spec.parts()])
            )
            took_s = time.perf_counter() - start
        ray.shutdown()
    server.shutdown()
    headline = {
        "bench": "reading",
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "logical_cpus": num_cpus,
        "files": num_files,
        "file_mib": file_mib,
        "at_once": SlowFiles.at_once,
        "read_mib": num_bytes // 2**20,
        "read_s": round(took_s, 1),
    }
    print(json.dumps(headline), flush=True)


if __name__ == "__main__":
    numbers = [int(arg) for arg in sys.argv[1:]]
    main(*numbers, *[8, 30, 32][len(numbers) :])
