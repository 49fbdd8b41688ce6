"""A real S3-compatible server (SeaweedFS) on loopback, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import pick_ports

S3_START_TIMEOUT_S = 90.0
S3_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class S3Address:
    """Where this session's S3 server is, or will be once the `s3` fixture is asked for."""

    port: int
    access_key: str = field(default_factory=lambda: "test-" + secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    region: str = "us-east-1"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The usual AWS variables, for a process that shall use this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 S3 client that fails fast; use it as a context manager, or close it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10
            ),
        )


@dataclass(frozen=True)
class S3Server(S3Address):
    """A running server; `bucket()` makes a fresh bucket."""

    def bucket(self) -> str:
        name = "t-" + secrets.token_hex(6)
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name


@contextlib.contextmanager
def running_s3(address: S3Address, folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with one identity while the block runs, stopped by its own handle.

    Args:
        folder: where it keeps everything; made here.
    Raises:
        RuntimeError: it is not installed, or did not answer in time.
    """
    with starting_s3(address, folder) as answering:
        yield answering()


@contextlib.contextmanager
def starting_s3(address: S3Address, folder: Path) -> Iterator[Callable[[], S3Server]]:
    """As `running_s3`, without the wait: what it yields waits until the server answers, and may raise."""
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        raise RuntimeError(f"{weed} is missing; run: make install-dev")
    folder.mkdir()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": address.access_key, "secretKey": address.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "identities.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    master, volume, filer = pick_ports(3, twin_offset=10_000)
    command = [
        str(weed),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-filer.localSocket={folder}/filer.sock",
        "-s3",
        f"-s3.port={address.port}",
        f"-s3.localSocket={folder}/s3.sock",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",  # its default clashes with other programs
        "-s3.port.lance=0",  # its default is Serve HAProxy's metrics port
        "-volume.max=400",
        "-master.volumeSizeLimitMB=64",
    ]
    server = S3Server(**vars(address))
    log_path = folder / "weed.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        yield lambda: _answering(server, process, log_path)
    finally:
        process.kill()  # a polite stop takes 15 s, and its folder goes with it
        process.wait(S3_STOP_TIMEOUT_S)
        for kind, port in {"master": master, "volume": volume, "filer": filer, "s3": address.port}.items():
            grpc_socket(kind, port).unlink(missing_ok=True)


def grpc_socket(kind: str, port: int) -> Path:
    """What SeaweedFS makes beside each of its ports, in a place of its own choice, and leaves behind when it is killed.

    Args:
        kind: `master`, `volume`, `filer` or `s3`.
    """
    return Path("/tmp") / f"seaweedfs-{kind}-grpc-{port + 10_000}.sock"


def _answering(server: S3Server, process: subprocess.Popen[bytes], log_path: Path) -> S3Server:
    """Poll until a bucket can be made and an object comes back: the S3 port opens before volumes are ready."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + S3_START_TIMEOUT_S
    seen: Exception | None = None
    while time.monotonic() < deadline and process.poll() is None:
        try:
            bucket = server.bucket()
            with contextlib.closing(server.client()) as client:
                client.put_object(Bucket=bucket, Key="probe", Body=b"x")
                assert client.get_object(Bucket=bucket, Key="probe")["Body"].read() == b"x"
            return server
        except (BotoCoreError, ClientError) as error:
            seen = error
        time.sleep(0.25)  # between two tries; the server tells nobody when it is ready
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-20:])
    state = "still runs" if process.poll() is None else f"exited with {process.returncode}"
    raise RuntimeError(f"SeaweedFS {state} but did not answer in {S3_START_TIMEOUT_S:.0f} s ({seen})\n{tail}")
