"""cluster/aws.yaml and cluster/check.py: what the file promises; broken copies of it are refused with a path."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
TEXT = (CLUSTER / "aws.yaml").read_text()
EDITED = TEXT.replace("ami-00000000000000000", "ami-0123456789abcdef0")
Config = dict[str, Any]


def load_check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cluster_check", CLUSTER / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_check"] = module
    spec.loader.exec_module(module)
    return module


check = load_check()
GOOD = json.dumps(check.load(EDITED))


@pytest.fixture(scope="module", autouse=True)
def files_of_ray_are_good() -> Iterator[None]:
    """At each of many hundred validations jsonschema checks Ray's schema itself, and Ray reads its defaults anew with
    the slow one of PyYAML's parsers: most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonschema.Draft7Validator, "check_schema", lambda schema, **more: None)
        fast = SimpleNamespace(safe_load=partial(yaml.load, Loader=yaml.CSafeLoader))
        patch.setattr("ray.autoscaler._private.providers.yaml", fast)
        yield


def good() -> Config:
    # A copy through JSON: YAML anchors would make one mutation appear in every node type.
    return json.loads(GOOD)


def starts(config: Config) -> list[str]:
    commands = [c for k, v in config.items() if k.endswith("_commands") for c in v]
    return [c for c in commands if "ray start" in c]


# --- what the file promises ------------------------------------------------------------------------------------------


def test_aws_yaml_after_the_three_edits_has_no_problems():
    assert check.problems(good()) == []


def test_aws_yaml_as_shipped_is_refused_for_its_placeholder_image_only():
    found = check.problems(check.load(TEXT))
    assert found and all(path.endswith(".ImageId") and "placeholder" in what for path, what in found)


def test_aws_yaml_marks_three_edits():
    assert re.findall(r"EDIT (\d)", TEXT) == ["1", "2", "3"]


def test_every_ray_start_sets_token_mode_first():
    commands = starts(good())
    assert len(commands) == 2
    assert all(re.search(r"\bRAY_AUTH_MODE=token\b.*\bray start\b", c) for c in commands)


def test_no_command_listens_on_every_interface():
    assert "0.0.0.0" not in json.dumps(good())
    assert "--dashboard-host=127.0.0.1" in starts(good())[0]


def test_head_has_no_cpus_and_workers_start_from_zero():
    types = good()["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0} and types["head"]["max_workers"] == 0
    assert all(t["min_workers"] == 0 for t in types.values())


def test_every_machine_has_imdsv2_and_encrypted_gp3():
    for node_type in good()["available_node_types"].values():
        node = node_type["node_config"]
        assert node["MetadataOptions"] == {
            "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}  # fmt: skip
        assert all(d["Ebs"]["Encrypted"] and d["Ebs"]["VolumeType"] == "gp3" for d in node["BlockDeviceMappings"])


def test_gpu_workers_are_spot_first_with_an_on_demand_twin():
    types = good()["available_node_types"]
    spot = [
        n for n, t in types.items() if t["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    ]
    assert spot == ["gpu_spot"]
    assert types["gpu_spot"]["priority"] > types["gpu"]["priority"]
    assert types["gpu_spot"]["node_config"]["InstanceType"] == types["gpu"]["node_config"]["InstanceType"]


def test_serve_settings_are_the_same_on_head_and_workers():
    head, worker = (dict(check.EXPORTED.findall(c.partition("ray start")[0])) for c in starts(good()))
    assert head == worker
    assert head["RAY_SERVE_ENABLE_HA_PROXY"] == head["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert head["RAY_SERVE_HAPROXY_RETRY_ON"] == '"conn-failure empty-response"'


def test_folders_of_haproxy_are_private_on_every_node():
    for command in starts(good()):
        assert re.search(r"\bumask 077;", command.partition("ray start")[0])


def test_nodes_install_the_version_of_this_checkout():
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.M)
    assert version is not None
    setup = " ".join(good()["setup_commands"])
    assert f"raypipe-{version[1]}-py3-none-any.whl" in setup
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned is not None and f"]=={pinned[1]}'" in setup


def test_readme_says_how_ssh_is_limited_and_what_was_not_proved():
    readme = (CLUSTER / "README.md").read_text()
    assert "Ray always adds SSH from `0.0.0.0/0`" in readme
    assert "Not proved: anything on real EC2" in readme
    steps = [
        "A token",
        "Bucket, roles",
        "Three edits",
        "ray up",
        "raypipe submit",
        "Endpoint",
        "What it costs",
        "ray down",
    ]
    places = [readme.index(step, readme.index("## 1.")) for step in steps]
    assert places == sorted(places)


# --- broken copies, written by hand ----------------------------------------------------------------------------------


def edit(path: str, value: Any = None, *, drop: bool = False) -> Callable[[Config], None]:
    def apply(config: Config) -> None:
        *way, last = path.split("/")
        place: Any = config
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        last_key: Any = int(last) if isinstance(place, list) else last
        if drop:
            del place[last_key]
        else:
            place[last_key] = value

    return apply


def replace(path: str, old: str, new: str) -> Callable[[Config], None]:
    def apply(config: Config) -> None:
        field, index = path.split("/")
        assert old in config[field][int(index)]
        config[field][int(index)] = config[field][int(index)].replace(old, new)

    return apply


T, HEAD, WORKER = "available_node_types", "head_start_ray_commands/1", "worker_start_ray_commands/1"
BROKEN: dict[str, Callable[[Config], object]] = {
    "unknown key": edit("autoscaling_mode", "fast"),
    "node_config missing": edit(f"{T}/cpu/node_config", drop=True),
    "resources missing": edit(f"{T}/cpu/resources", drop=True),
    "unknown head type": edit("head_node_type", "boss"),
    "head type missing": edit("head_node_type", drop=True),
    "node types missing": edit(T, drop=True),
    "node types empty": edit(T, {}),
    "min above max": edit(f"{T}/cpu/min_workers", 9),
    "sum of min above ceiling": edit("max_workers", 0),
    "negative ceiling": edit("max_workers", -1),
    "ceiling is text": edit("max_workers", "8"),
    "negative min": edit(f"{T}/cpu/min_workers", -1),
    "type above ceiling": edit(f"{T}/cpu/max_workers", 9),
    "spot machine promised": edit(f"{T}/gpu_spot/min_workers", 1),
    "no worker possible": lambda c: [edit(f"{T}/{n}/max_workers", 0)(c) for n in ("cpu", "gpu", "gpu_spot")],
    "other provider": edit("provider/type", "gcp"),
    "provider missing": edit("provider", drop=True),
    "region missing": edit("provider/region", drop=True),
    "region is a zone": edit("provider/region", "us-west-2a"),
    "region misspelt": edit("provider/region", "us-wset-2"),
    "region is a name": edit("provider/region", "Oregon"),
    "zone of another region": edit("provider/availability_zone", "us-west-2a,us-east-1a"),
    "zone without its letter": edit("provider/availability_zone", "us-west-2"),
    "instance type misspelt": edit(f"{T}/cpu/node_config/InstanceType", "m6i-2xlarge"),
    "subnet is a name": edit(f"{T}/cpu/node_config/SubnetIds", ["default"]),
    "keys in the file": edit("provider/aws_credentials", {"aws_access_key_id": "x"}),
    "stopped nodes kept": edit("provider/cache_stopped_nodes", True),
    "dashboard public": replace(HEAD, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
    "dashboard on ::": replace(HEAD, "--dashboard-host=127.0.0.1", "--dashboard-host=::"),
    "dashboard twice": replace(HEAD, "--dashboard-port", "--dashboard-host 10.0.0.1 --dashboard-port"),
    "dashboard unsaid": replace(HEAD, "--dashboard-host=127.0.0.1", ""),
    "head without token": replace(HEAD, "RAY_AUTH_MODE=token", ""),
    "worker without token": replace(WORKER, "RAY_AUTH_MODE=token", ""),
    "auth disabled": replace(HEAD, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    "auth disabled afterwards": replace(HEAD, "ulimit", "export RAY_AUTH_MODE=disabled; ulimit"),
    "token mode after start": replace(WORKER, "export RAY_AUTH_MODE=token", "ray start --head; RAY_AUTH_MODE=token"),
    "token in a command": replace(HEAD, "ulimit", "export RAY_AUTH_TOKEN=abc; ulimit"),
    "head runs tasks by flag": replace(HEAD, "--num-cpus=0", "--num-cpus=4"),
    "head runs tasks": edit(f"{T}/head/resources", {}),
    "head CPUs": edit(f"{T}/head/resources/CPU", 4),
    "head type for workers": edit(f"{T}/head/max_workers", 1),
    "head on spot": edit(f"{T}/head/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
    "no autoscaling": replace(HEAD, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
    "worker joins elsewhere": replace(WORKER, "$RAY_HEAD_IP", "head.example"),
    "HAProxy off on workers": replace(WORKER, "RAY_SERVE_ENABLE_HA_PROXY=1", "RAY_SERVE_ENABLE_HA_PROXY=0"),
    "settings differ": replace(WORKER, "BUFSIZE=65536", "BUFSIZE=16384"),
    "no head start": edit("head_start_ray_commands", []),
    "two worker starts": lambda c: c["worker_start_ray_commands"].append(c["worker_start_ray_commands"][1]),
    "disk not encrypted": edit(f"{T}/cpu/node_config/BlockDeviceMappings/0/Ebs/Encrypted", False),
    "disk encryption unsaid": edit(f"{T}/gpu/node_config/BlockDeviceMappings/0/Ebs/Encrypted", drop=True),
    "old disk": edit(f"{T}/gpu/node_config/BlockDeviceMappings/0/Ebs/VolumeType", "gp2"),
    "tiny disk": edit(f"{T}/gpu/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", 8),
    "disk outlives machine": edit(f"{T}/gpu/node_config/BlockDeviceMappings/0/Ebs/DeleteOnTermination", False),
    "disk unsaid": edit(f"{T}/cpu/node_config/BlockDeviceMappings", drop=True),
    "IMDSv1": edit(f"{T}/head/node_config/MetadataOptions/HttpTokens", "optional"),
    "IMDS unsaid": edit(f"{T}/head/node_config/MetadataOptions", drop=True),
    "IMDS hops": edit(f"{T}/cpu/node_config/MetadataOptions/HttpPutResponseHopLimit", 5),
    "worker with the head's role": edit(f"{T}/cpu/node_config/IamInstanceProfile/Name", "raypipe-head"),
    "no role": edit(f"{T}/gpu_spot/node_config/IamInstanceProfile", drop=True),
    "image is a name": edit(f"{T}/cpu/node_config/ImageId", "ubuntu"),
    "image missing": edit(f"{T}/cpu/node_config/ImageId", drop=True),
    "instance type missing": edit(f"{T}/cpu/node_config/InstanceType", drop=True),
    "EC2 knows no such key": edit(f"{T}/cpu/node_config/InstanceTypo", "m6i.large"),
    "EC2 wants a number": edit(f"{T}/cpu/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", "big"),
    "user data": edit(f"{T}/cpu/node_config/UserData", "#!/bin/sh"),
    "half of the internet": edit("provider/security_group/IpPermissions", [
        {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "128.0.0.0/1"}]}]),
    "no network": edit("provider/security_group/IpPermissions", [
        {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "10.0.0.0/33"}]}]),
    "own security groups": edit(f"{T}/cpu/node_config/SecurityGroupIds", ["sg-1"]),
    "spot in name only": edit(f"{T}/gpu_spot/node_config/InstanceMarketOptions", drop=True),
    "secretly spot": edit(f"{T}/gpu/node_config/InstanceMarketOptions", {"MarketType": "spot"}),
    "Serve open to all": edit("provider/security_group/IpPermissions", [
        {"FromPort": 8000, "ToPort": 8000, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]),
    "open to all of IPv6": edit("provider/security_group/IpPermissions", [
        {"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]),
    "group without a name": edit("provider/security_group/GroupName", drop=True),
    "unknown key in group": edit("provider/security_group/Rules", []),
    "token not mounted": edit("file_mounts", {}),
    "token inside the checkout": edit("file_mounts", {"~/.ray": "./secrets"}),
    "token file instead of folder": edit("file_mounts", {"~/.ray": "~/.raypipe/aws/auth_token"}),
    "ray unpinned": replace("setup_commands/3", "==2.60.0", ""),
    "raypipe by name": replace("setup_commands/3", "~/raypipe-node/raypipe-0.1.0-py3-none-any.whl", "raypipe==0.1.0"),
    "no constraints": replace("setup_commands/3", "--constraint ~/raypipe-node/constraints.txt", ""),
    "never idle": edit("idle_timeout_minutes", 0),
    "idle for a day": edit("idle_timeout_minutes", 1440),
    "GPU idle for a day": edit(f"{T}/gpu/idle_timeout_s", 86400),
    "other cluster name": edit("cluster_name", "mine"),
    "key id in metadata": edit("metadata/note", "AKIA" + "A" * 16),
    "commands are one text": edit("setup_commands", "pip install ray"),
    "priority is text": edit(f"{T}/gpu/priority", "high"),
    "label is a number": edit(f"{T}/gpu/labels/market", 1),
    "fractional CPUs": edit(f"{T}/head/resources/CPU", 0.5),
    "docker typo": edit("docker", {"imgae": "x"}),
    "auth typo": edit("auth", {"ssh_usr": "ubuntu"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_by_hand_is_refused_with_the_path_of_a_field(name):
    config = good()
    BROKEN[name](config)
    found = check.problems(config)
    assert found, name
    assert all(path and what for path, what in found)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "a: !!python/object/apply:os.getcwd []\n", "",
                                  EDITED.replace("cluster_name: raypipe", "cluster_name: raypipe\ncluster_name: b"),
                                  EDITED.replace("    priority: 5", "    priority: 5\n    priority: 6")])  # fmt: skip
def test_text_that_is_no_mapping_or_says_a_thing_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"readable YAML|must be a mapping"):
        check.load(text)


# --- broken copies, made from every key of the file ------------------------------------------------------------------

FREE = ("metadata", "file_mounts", f"{T}/head/labels", f"{T}/cpu/labels", f"{T}/gpu/labels", f"{T}/gpu_spot/labels")
"""Places where any key is legal, so a renamed one cannot be told from a new one."""


def keys(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}/{key}".lstrip("/")
            if not here.startswith(FREE):
                yield here
                yield from keys(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys(item, f"{path}/{index}")


def way_to(config: Config, path: str) -> tuple[Any, Any]:
    *way, last = path.split("/")
    place: Any = config
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    return place, last


def test_every_key_misspelt_or_of_another_type_is_refused():
    passed, tried = [], 0
    wrong_types = itertools.cycle(("list of list", "nothing"))
    for path in keys(good()):
        if path.split("/")[:1] == [T] and path.count("/") == 1:
            continue  # a node type may have any name
        for kind in ("misspelt", next(wrong_types)):
            config = good()
            place, last = way_to(config, path)
            if kind == "misspelt":
                place[last + "x"] = place.pop(last)
            else:
                place[last] = [[]] if kind == "list of list" else None
            tried += 1
            if not check.problems(config):
                passed.append(f"{path} {kind}")
    assert passed == []
    assert tried >= 200


def test_check_prints_each_problem_on_stderr_and_exits_2(tmp_path, capsys):
    assert check.main([str(CLUSTER / "aws.yaml")]) == 2
    assert "gpu_spot.node_config.ImageId" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(EDITED)
    assert check.main([str(tmp_path / "c.yaml")]) == 0
    assert check.main([str(tmp_path / "absent.yaml")]) == 2


@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("us-west-2a", "did you mean us-west-2? us-west-2a reads like a zone of it"),
        ("us-wset-2", "did you mean us-west-2?"),
    ],
)
def test_region_that_is_none_is_told_the_one_meant(region: str, hint: str):
    config = good()
    config["provider"]["region"] = region
    ((path, what),) = check.problems(config)
    assert path == "provider.region" and hint in what


@pytest.mark.parametrize("zone", ["us-west-2a", "us-west-2a,us-west-2b", "us-west-2-lax-1a"])
def test_zones_of_the_region_are_taken(zone: str):
    config = good()
    config["provider"]["availability_zone"] = zone
    assert check.problems(config) == []
