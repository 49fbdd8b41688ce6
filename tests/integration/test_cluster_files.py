"""cluster/ against what can stand in for AWS here: Ray's own launcher code, simulated EC2 and IAM, real programs.

Nothing leaves 127.0.0.1. `ray up` itself is never run: it would try to reach simulated machines by SSH.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config

from raypipe.testing.faults import kill_tree
from tests.conftest import pick_ports
from tests.integration.s3_server import grpc_socket

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster" / "aws.yaml").read_text()
README = (ROOT / "cluster" / "README.md").read_text()
IMAGE = "ami-1e749f67"  # one that moto knows
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}  # moto accepts anything
BARE = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_")) and not k.lower().endswith("_proxy")}


def readme_block(name: str) -> str:
    """The shell lines of README.md that carry `<!-- run: name -->`; what users paste is what is tested."""
    found = re.search(rf"<!-- run: {name} -->\n```bash\n(.*?)```", README, re.S)
    assert found is not None
    return found[1]


def wait_until(is_true: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"still not so after {seconds} s: {what}"
        time.sleep(0.1)  # between two questions; the deadline decides


def http(url: str, token: str | None = None, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except OSError:  # nobody answers
        return 0, None


def processes_mentioning(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if text in line:
                found.append(f"{entry.name} {line}")
    return found


# --- a simulated AWS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a process that takes moto for AWS, with a home of its own (Ray writes a key to ~/.ssh)."""
    home, port = tmp_path_factory.mktemp("home"), pick_ports(1)[0]
    env = {**BARE, **KEYS, "HOME": str(home), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
           "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": ""}  # fmt: skip
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (home / "moto.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: http(f"{env['AWS_ENDPOINT_URL']}/moto-api/data.json")[0] == 200, "moto answers", 30)
        yield env
    finally:
        server.terminate()
        server.wait(10)


LAUNCH = """
import json, sys, yaml
from ray.autoscaler import tags
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config

config = prepare_config(yaml.safe_load(sys.stdin.read()))
validate_config(config)
config = _bootstrap_config(config, no_config_cache=True)
provider = _get_node_provider(config["provider"], config["cluster_name"])
made = {}
for name, node_type in config["available_node_types"].items():
    kind = "head" if name == config["head_node_type"] else "worker"
    labels = {tags.TAG_RAY_NODE_KIND: kind, tags.TAG_RAY_USER_NODE_TYPE: name, tags.TAG_RAY_NODE_NAME: "x",
              tags.TAG_RAY_NODE_STATUS: tags.STATUS_UNINITIALIZED, tags.TAG_RAY_LAUNCH_CONFIG: "h"}
    made[name] = list(provider.create_node(node_type["node_config"], labels, 1))
ids = [i for group in made.values() for i in group]
assert sorted(provider.non_terminated_nodes({})) == sorted(ids)
resources = {name: node_type["resources"] for name, node_type in config["available_node_types"].items()}
print("MADE " + json.dumps({"made": made, "resources": resources}))
"""


def launch(aws: dict[str, str], region: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """One machine of each node type through Ray's launcher; the EC2 descriptions, Ray's resources, and the client."""
    text = TEXT.replace("ami-00000000000000000", IMAGE).replace("region: us-west-2", f"region: {region}")
    done = subprocess.run([sys.executable, "-c", LAUNCH], input=text, env=aws, cwd=ROOT, capture_output=True,
                          text=True, timeout=90)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.split("MADE ", 1)[1])
    ec2 = client("ec2", aws, region)
    described = {
        name: ec2.describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][0]
        for name, ids in answer["made"].items()
    }
    return described, answer["resources"], ec2


def client(service: Any, env: dict[str, str], region: str = "us-east-1") -> Any:
    return boto3.client(
        service, region_name=region, endpoint_url=env["AWS_ENDPOINT_URL"], aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"], config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


def public_rules(ec2: Any, instance: dict[str, Any]) -> list[tuple[int, str]]:
    groups = ec2.describe_security_groups(GroupIds=[g["GroupId"] for g in instance["SecurityGroups"]])
    return [
        (rule["FromPort"], source["CidrIp"])
        for group in groups["SecurityGroups"] for rule in group["IpPermissions"] for source in rule["IpRanges"]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(aws: dict[str, str]) -> dict[str, str]:
    """README step 3, run as written by the real aws program, in the region of the file."""
    if shutil.which("aws") is None:
        pytest.skip("the aws program is not installed; README step 3 cannot be run")
    script = "set -euo pipefail\nMY_ADDRESS=192.0.2.7\n" + readme_block("aws")
    done = subprocess.run(["bash", "-c", script], env=aws, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    return aws


def test_launch_after_readme_step_3_makes_closed_encrypted_machines(prepared):
    machines, resources, ec2 = launch(prepared, "us-west-2")
    assert set(machines) == {"head", "cpu", "gpu_spot", "gpu"}
    for name, machine in machines.items():
        profile = machine["IamInstanceProfile"]["Arn"].split("/")[-1]
        assert profile == ("raypipe-head" if name == "head" else "raypipe-node"), name
        assert machine["MetadataOptions"]["HttpTokens"] == "required", name
        assert machine["ImageId"] == IMAGE
        assert machine.get("InstanceLifecycle") == ("spot" if name == "gpu_spot" else None), name
        disks = [d["Ebs"]["VolumeId"] for d in machine["BlockDeviceMappings"]]
        volumes = ec2.describe_volumes(VolumeIds=disks)["Volumes"]
        assert volumes and all(v["Encrypted"] and v["VolumeType"] == "gp3" and v["Size"] == 150 for v in volumes), name
        tags = {t["Key"]: t["Value"] for t in machine["Tags"]}
        assert tags["ray-cluster-name"] == "raypipe" and tags["ray-user-node-type"] == name
        assert public_rules(ec2, machine) == [(22, "192.0.2.7/32")], name
    assert resources["head"]["CPU"] == 0
    assert resources["cpu"]["CPU"] == 8
    assert resources["gpu_spot"]["GPU"] == resources["gpu"]["GPU"] == 1
    ec2.terminate_instances(InstanceIds=[m["InstanceId"] for m in machines.values()])


def test_readme_step_3_leaves_two_roles_with_the_policies_of_the_repository(prepared):
    iam = client("iam", prepared)
    for role, policies in (("raypipe-node", ["raypipe-s3"]), ("raypipe-head", ["raypipe-autoscale", "raypipe-s3"])):
        assert sorted(iam.list_role_policies(RoleName=role)["PolicyNames"]) == policies
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        profile = iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]
        assert [r["RoleName"] for r in profile["Roles"]] == [role]
        document = json.dumps(iam.get_role_policy(RoleName=role, PolicyName="raypipe-s3")["PolicyDocument"])
        assert "arn:aws:s3:::my-bucket/raypipe/*" in document
        assert "BUCKET" not in document and "PREFIX" not in document


def test_launch_without_the_group_opens_ssh_and_nothing_else(prepared):
    machines, _, ec2 = launch(prepared, "us-east-2")
    for machine in machines.values():
        assert public_rules(ec2, machine) == [(22, "0.0.0.0/0")]
    key = next((Path(prepared["HOME"]) / ".ssh").glob("*.pem"))
    assert key.stat().st_mode & 0o077 == 0


# --- the start command, for real -------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """A home as `ray up` leaves it on the head: token folder mounted, environment under ~/raypipe-venv."""
    home = tmp_path / "home"
    home.mkdir()
    env = {**BARE, "HOME": str(home)}
    subprocess.run(["bash", "-euc", readme_block("token")], env=env, check=True, timeout=20)
    shutil.copytree(home / ".raypipe" / "aws", home / ".ray")  # what file_mounts does
    (home / "raypipe-venv").symlink_to(sys.prefix)
    (home / ".bashrc").write_text("# comes with the image\n")
    return env


def head_command(dashboard: int) -> str:
    """The file's own command on free ports and loopback, in the foreground, without an autoscaler to call EC2."""
    command = yaml.safe_load(TEXT)["head_start_ray_commands"][-1]
    gcs, client, agent = pick_ports(3)  # the suite's own Ray has its agent at the usual port
    for old, new in (("--port=6379", f"--port={gcs} --node-ip-address=127.0.0.1 --block"),
                     ("--dashboard-port=8265", f"--dashboard-port={dashboard}"),
                     ("--autoscaling-config=~/ray_bootstrap_config.yaml", "")):  # fmt: skip
        assert old in command
        command = command.replace(old, new)
    command = command.replace("ray start", "exec ray start")  # so that the process we start is the one we end
    return command + f" --ray-client-server-port={client} --dashboard-agent-listen-port={agent}"


def test_setup_closes_the_token_and_can_run_twice(node):
    close, *_, bashrc = yaml.safe_load(TEXT)["setup_commands"]
    home = Path(node["HOME"])
    (home / ".ray" / "auth_token").chmod(0o644)
    for _ in range(2):
        subprocess.run(["bash", "-c", close], env=node, check=True, timeout=10)
        subprocess.run(["bash", "-c", bashrc], env=node, check=True, timeout=10)
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (home / ".bashrc").read_text().count("RAY_AUTH_MODE=token") == 1
    assert (home / ".raypipe" / "aws" / "auth_token").stat().st_mode & 0o077 == 0
    (home / ".ray" / "auth_token").unlink()
    assert subprocess.run(["bash", "-c", close], env=node, timeout=10).returncode != 0


@pytest.mark.ray
def test_head_without_a_token_file_does_not_start(node):
    (Path(node["HOME"]) / ".ray" / "auth_token").unlink()
    done = subprocess.run(["bash", "-c", head_command(pick_ports(1)[0])], env=node, capture_output=True, text=True,
                          timeout=60)  # fmt: skip
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()


@pytest.mark.ray
def test_head_started_by_the_files_command_needs_the_token_and_runs_no_tasks(node):
    dashboard, token = pick_ports(1)[0], (Path(node["HOME"]) / ".ray" / "auth_token").read_text()
    url, scratch = f"http://127.0.0.1:{dashboard}", Path("/tmp") / f"rp{os.getpid()}-{secrets.token_hex(3)}"
    scratch.mkdir(mode=0o700)  # short, because Ray puts sockets below it
    # What Ray's updater exports for a node type, and a place of its own.
    env = {**node, "RAY_TMPDIR": str(scratch), "RAY_OVERRIDE_RESOURCES": '{"CPU":0}',
           "RAY_OVERRIDE_LABELS": '{"role":"head","market":"on-demand"}', "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    with (Path(node["HOME"]) / "start.log").open("w") as log:
        head = subprocess.Popen(["bash", "-c", head_command(dashboard)], env=env, stdout=log, stderr=log,
                                start_new_session=True)  # fmt: skip
    try:
        wait_until(lambda: http(f"{url}/api/version", token)[0] == 200, "the dashboard answers", 60)
        assert http(f"{url}/api/jobs/")[0] == 401
        assert http(f"{url}/api/jobs/", "0" * 64)[0] == 403
        assert http(f"{url}/api/jobs/", None, {"entrypoint": "true"})[0] == 401
        assert listening_addresses(dashboard) == {"127.0.0.1"}

        def nodes() -> list[dict[str, Any]]:
            status, answer = http(f"{url}/api/v0/nodes?detail=true", token)
            return answer["data"]["result"]["result"] if status == 200 else []

        wait_until(lambda: len(nodes()) == 1, "the head is listed", 30)
        (row,) = nodes()
        assert row["labels"]["role"] == "head"
        assert row["resources_total"].get("CPU", 0) == 0
        status, job = http(f"{url}/api/jobs/", token, {"entrypoint": "env; command -v raypipe || command -v ray"})
        assert status == 200
        wait_until(lambda: http(f"{url}/api/jobs/{job['submission_id']}", token)[1]["status"] in
                   ("SUCCEEDED", "FAILED"), "the job ends", 60)  # fmt: skip
        logs = http(f"{url}/api/jobs/{job['submission_id']}/logs", token)[1]["logs"]
        for line in ("RAY_AUTH_MODE=token", "RAY_SERVE_ENABLE_HA_PROXY=1", "RAY_SERVE_THROUGHPUT_OPTIMIZED=1",
                     "RAY_SERVE_HAPROXY_RETRY_ON=conn-failure empty-response"):  # fmt: skip
            assert line in logs.splitlines()
        assert any(re.fullmatch(r"/\S+/raypipe-venv/bin/ray(pipe)?", line) for line in logs.splitlines())
        assert token not in logs
    finally:
        head.terminate()  # `ray start --block` itself; it ends what it started
        try:
            head.wait(30)
            wait_until(lambda: not processes_mentioning(str(scratch)), "every Ray process of this head is gone", 30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)  # our own session, started above
            shutil.rmtree(scratch, ignore_errors=True)


def listening_addresses(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, hexport = local.rpartition(":")
            if state == "0A" and int(hexport, 16) == port:
                is_loopback = address in ("0100007F", "00000000000000000000000001000000")
                found.add("127.0.0.1" if is_loopback else address)
    return found


# --- the development object store ------------------------------------------------------------------------------------


@pytest.mark.s3
def test_object_store_stores_an_object_and_leaves_nothing_behind(tmp_path):
    env = {**BARE, "TMPDIR": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [ROOT / "cluster" / "object_store.sh", "--bucket", "mine"]
    with subprocess.Popen(
        words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as server:
        try:
            assert server.stdout is not None
            exported: dict[str, str] = {}
            for line in server.stdout:  # ends when the server does, so this cannot hang on a crash
                name, _, value = line.strip().removeprefix("export ").partition("=")
                exported[name] = value
                if line.startswith("#"):
                    break
            assert exported["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
            s3 = client("s3", exported)
            s3.put_object(Bucket="mine", Key="dev/a", Body=b"hello")
            assert s3.get_object(Bucket="mine", Key="dev/a")["Body"].read() == b"hello"
            assert http(f"{exported['AWS_ENDPOINT_URL']}/mine/dev/a")[0] == 403
            assert listening_addresses(int(exported["AWS_ENDPOINT_URL"].rpartition(":")[2])) == {"127.0.0.1"}
            (private,) = tmp_path.iterdir()
            assert private.stat().st_mode & 0o077 == 0
            assert (private / "identities.json").stat().st_mode & 0o077 == 0
            running = processes_mentioning(str(private))
            ports = re.findall(r"-(master|volume|filer|s3)\.port=(\d+)", running[0])
            sockets = [grpc_socket(kind, int(port)) for kind, port in ports]
            assert len(ports) == 4 and all(path.exists() for path in sockets)
            assert running and not any(exported["AWS_SECRET_ACCESS_KEY"] in line for line in running)
        finally:
            server.send_signal(signal.SIGINT)  # Ctrl-C, to the script alone
            try:
                out, err = server.communicate(timeout=20)
            finally:
                if server.poll() is None:
                    kill_tree(server)
    assert server.returncode == 130
    assert err.endswith("object store stopped\n") and exported["AWS_SECRET_ACCESS_KEY"] not in err + out
    assert processes_mentioning(str(private)) == []
    assert list(tmp_path.iterdir()) == [] and [path for path in sockets if path.exists()] == []


@pytest.mark.parametrize(
    "flags", [["--port", "many"], ["--bucket", "No_Good"], ["--port"], ["--wrong"], ["--port", "80"]]
)
def test_object_store_refuses_bad_flags_before_starting(flags, tmp_path):
    env = {**BARE, "TMPDIR": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "cluster" / "object_store.sh", *flags], env=env, capture_output=True, text=True,
                          timeout=20)  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert "object_store.sh" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
