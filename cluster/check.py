"""Refuse a `ray up` file for AWS that is misspelt, open, or quietly expensive. Offline; nothing is started.

    python cluster/check.py cluster/aws.yaml        0: fine    2: each line is one problem, with the path of its field

Three layers: YAML without duplicate keys, Ray's own schema and rules, EC2's own parameter model (a typo inside
`node_config` passes Ray and fails only at launch), then the rules of this folder: token on every `ray start`, nothing
public, IMDSv2, encrypted disks, roles, a ceiling on machines. Start reading at `problems`.
"""

from __future__ import annotations

import copy
import difflib
import ipaddress
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PLACEHOLDER_IMAGE = "ami-00000000000000000"
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group", "use_internal_ips"}
TOKEN_MODE = re.compile(r"\bRAY_AUTH_MODE=token\b")
EXPORTED = re.compile(r"\b(RAY_[A-Z_]+)=(\"[^\"]*\"|\S+?)(?=[\s;]|$)")
SECRETS = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|RAY_AUTH_TOKEN=|AWS_SECRET_ACCESS_KEY|-----BEGIN|\b[0-9a-f]{64}\b")
ANYWHERE = {"0.0.0.0/0", "::/0"}
MAX_IDLE_MINUTES = 60

Problem = tuple[str, str]
"""Path of the field, and what was found and must hold."""


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice; plain YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in written:
            # After merging, an overridden anchor key also appears twice; only the nodes of this mapping are checked.
            if written.count(key) > 1 and not getattr(node, "merged", False):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is written twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        has_merge = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
        super().flatten_mapping(node)
        if has_merge:
            node.merged = True  # type: ignore[attr-defined]  # our mark, read above


def load(text: str) -> dict[str, Any]:
    """Parse cluster YAML; a duplicate key or anything but a mapping is a ValueError."""
    try:
        config = yaml.load(text, Loader=StrictLoader)  # a SafeLoader: no Python tags
    except yaml.YAMLError as error:
        raise ValueError(f"not readable YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"must be a mapping, found {type(config).__name__}")
    return config


def problems(config: dict[str, Any]) -> list[Problem]:
    """Everything wrong with a parsed cluster file; shape first, because the later rules rely on it."""
    if found := list(ray_rules(config)):
        return found
    if "available_node_types" not in config:
        return [("available_node_types", "missing; Ray's own default machines follow none of our rules")]
    if found := [*known_keys(config), *ec2_parameters(config)]:
        return found
    return [found for rule in RULES for found in rule(config)]


def ray_rules(config: dict[str, Any]) -> Iterator[Problem]:
    """What Ray itself refuses: its schema, then the rules that span fields."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    if not isinstance(config.get("provider"), dict) or config["provider"].get("type") != "aws":
        yield "provider.type", f"must be aws, found {config.get('provider')!r}"
        return
    try:
        # Schema first, on the text as written: prepare_config trips over wrong types with a bare TypeError.
        validate_config({"cluster_synced_files": [], "max_workers": 0, **_without_node_rules(config)})
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        yield ".".join(map(str, error.absolute_path)) or "(top level)", error.message
    except (ValueError, KeyError, RuntimeError) as error:
        yield "(top level)", str(error)


def _without_node_rules(config: dict[str, Any]) -> dict[str, Any]:
    """The same config for a schema-only pass: a head name and a max_workers that always satisfy the later rules."""
    types = config.get("available_node_types")
    if not isinstance(types, dict) or not types:
        return config
    return {**config, "head_node_type": config.get("head_node_type", next(iter(types)))} | (
        {} if "max_workers" in config else {"max_workers": 10**9}
    )


def known_keys(config: dict[str, Any]) -> Iterator[Problem]:
    """Ray takes any key under provider; a typo there is silently ignored."""
    for key in config["provider"].keys() - PROVIDER_KEYS:
        yield f"provider.{key}", f"unknown or not allowed; known: {', '.join(sorted(PROVIDER_KEYS))}"
    if not config["provider"].get("region"):
        yield "provider.region", "missing; the region of your bucket"
    else:
        yield from region_and_zones(config["provider"])
    if config["provider"].get("cache_stopped_nodes") is not False:
        yield "provider.cache_stopped_nodes", "must be false: a stopped machine still bills its disk"


def region_and_zones(provider: dict[str, Any]) -> Iterator[Problem]:
    """A region of EC2, and only zones inside it; Ray finds out when it asks for the first machine."""
    region, known = provider["region"], ec2_regions()
    if region not in known:
        near = next((each for each in known if str(region).startswith(each)), None)
        close = [near] if near else difflib.get_close_matches(str(region), known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        hint += f" {region} reads like a zone of it: that is availability_zone" if near else ""
        yield "provider.region", f"{region!r} is not a region of EC2{hint}"
        return
    for zone in filter(None, str(provider.get("availability_zone") or "").split(",")):
        if not re.fullmatch(rf"{region}(-[a-z]+-\d+)?[a-z]", zone.strip()):
            yield (
                "provider.availability_zone",
                f"{zone!r} is not a zone of {region}, like {region}a; commas between several",
            )


@cache
def ec2_regions() -> tuple[str, ...]:
    """Of all partitions, as the installed botocore lists them."""
    import botocore.session

    session = botocore.session.Session()
    partitions = session.get_available_partitions()
    return tuple(sorted(r for each in partitions for r in session.get_available_regions("ec2", partition_name=each)))


def ec2_parameters(config: dict[str, Any]) -> Iterator[Problem]:
    """Each node_config against the input shape of EC2 RunInstances, as boto3 will check it at launch."""
    from botocore.validate import ParamValidator

    opened = (config["provider"].get("security_group") or {}).get("IpPermissions", [])
    report = ParamValidator().validate({"IpPermissions": opened}, ec2_shape("AuthorizeSecurityGroupIngress"))
    if report.has_errors():
        yield "provider.security_group.IpPermissions", report.generate_report()
    for name, node_type in config["available_node_types"].items():
        given = {"MinCount": 1, "MaxCount": 1, **node_type["node_config"]}
        given.pop("SubnetIds", None)  # Ray's own word
        report = ParamValidator().validate(given, ec2_shape("RunInstances"))
        if report.has_errors():
            yield f"available_node_types.{name}.node_config", report.generate_report()


@cache
def ec2_shape(operation: str) -> Any:
    """The model that boto3 itself ships; nothing is asked of AWS."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("ec2", "service-2")).operation_model(operation).input_shape


def node_counts(config: dict[str, Any]) -> Iterator[Problem]:
    """Every minimum below its maximum, every maximum below the ceiling."""
    ceiling, head = config.get("max_workers", 0), config["head_node_type"]
    if ceiling < 1:
        yield "max_workers", f"is {ceiling}: the head has no CPUs for tasks, so at least one worker must be allowed"
    for name, node_type in config["available_node_types"].items():
        low, high = node_type.get("min_workers", 0), node_type.get("max_workers", ceiling)
        if name == head:
            continue
        if not 0 <= low <= high:
            yield f"available_node_types.{name}", f"needs 0 <= min_workers <= max_workers, found {low} and {high}"
        if high > ceiling:
            yield f"available_node_types.{name}.max_workers", f"{high} is above the cluster's max_workers, {ceiling}"
        if low > 0 and node_type.get("labels", {}).get("market") == "spot":
            yield f"available_node_types.{name}.min_workers", "spot machines cannot be promised; use 0"
    if not any(t.get("max_workers", ceiling) > 0 for n, t in config["available_node_types"].items() if n != head):
        yield "available_node_types", "no worker type may have even one machine"


def head_runs_no_tasks(config: dict[str, Any]) -> Iterator[Problem]:
    """No CPUs, no workers of its type, never spot."""
    path = f"available_node_types.{config['head_node_type']}"
    head = config["available_node_types"][config["head_node_type"]]
    if head["resources"].get("CPU") != 0:
        yield f"{path}.resources.CPU", "must be 0: a task that fills the head's memory takes the whole cluster with it"
    if head.get("max_workers", 0) != 0 or head.get("min_workers", 0) != 0:
        yield f"{path}.max_workers", "must be 0: the head type is not for workers"
    if "InstanceMarketOptions" in head["node_config"]:
        yield f"{path}.node_config.InstanceMarketOptions", "the head must be on demand: losing it loses every job"


def machines(config: dict[str, Any]) -> Iterator[Problem]:
    """Image, role, metadata service, disks and market of every node type."""
    for name, node_type in config["available_node_types"].items():
        path, node = f"available_node_types.{name}.node_config", node_type["node_config"]
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", str(node.get("ImageId", ""))):
            yield f"{path}.ImageId", f"must be an image id like ami-0123456789abcdef0, found {node.get('ImageId')!r}"
        if node.get("ImageId") == PLACEHOLDER_IMAGE:
            yield f"{path}.ImageId", "is still the placeholder; README.md step 4 prints the one of your region"
        if not re.fullmatch(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", str(node.get("InstanceType", ""))):
            yield f"{path}.InstanceType", f"must be like m6i.xlarge, found {node.get('InstanceType')!r}"
        for subnet in node.get("SubnetIds") or []:
            if not re.fullmatch(r"subnet-[0-9a-f]{8,17}", str(subnet)):
                yield f"{path}.SubnetIds", f"must be ids like subnet-0123456789abcdef0, found {subnet!r}"
        is_head = name == config["head_node_type"]
        profile, wanted = node.get("IamInstanceProfile", {}).get("Name"), "raypipe-head" if is_head else "raypipe-node"
        if profile != wanted:
            yield f"{path}.IamInstanceProfile.Name", f"must be {wanted}, found {profile!r}; without it there is no S3"
        metadata = node.get("MetadataOptions", {})
        if metadata.get("HttpTokens") != "required":
            yield f"{path}.MetadataOptions.HttpTokens", "must be required (IMDSv2)"
        if metadata.get("HttpPutResponseHopLimit", 1) > (2 if config.get("docker") else 1):
            yield f"{path}.MetadataOptions.HttpPutResponseHopLimit", "must be 1, or 2 with docker"
        yield from disks(path, node.get("BlockDeviceMappings") or [])
        yield from market(f"available_node_types.{name}", node_type)
        for forbidden in ("UserData", "SecurityGroups", "SecurityGroupIds", "NetworkInterfaces"):
            if forbidden in node:
                yield f"{path}.{forbidden}", "would pass by these rules; use setup_commands, security_group"


def disks(path: str, mappings: list[dict[str, Any]]) -> Iterator[Problem]:
    """Every disk encrypted, gp3, gone with its machine."""
    if not mappings:
        yield f"{path}.BlockDeviceMappings", "missing; the image's own disk is small and may not be encrypted"
    for index, mapping in enumerate(mappings):
        disk, where = mapping.get("Ebs", {}), f"{path}.BlockDeviceMappings.{index}.Ebs"
        for key, wanted in (("Encrypted", True), ("VolumeType", "gp3"), ("DeleteOnTermination", True)):
            if disk.get(key) != wanted:
                yield f"{where}.{key}", f"must be {wanted}, found {disk.get(key)!r}"
        if not 100 <= disk.get("VolumeSize", 0) <= 2000:
            yield f"{where}.VolumeSize", f"must be 100 to 2000 GB, found {disk.get('VolumeSize')}"


def market(path: str, node_type: dict[str, Any]) -> Iterator[Problem]:
    """The label a task may select by must be how the machine is really bought."""
    bought = node_type["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
    label = node_type.get("labels", {}).get("market")
    if bought != label:
        yield f"{path}.labels.market", f"says {label!r} but the machine is bought as {bought!r}"


def nothing_public(config: dict[str, Any]) -> Iterator[Problem]:
    """No rule of the security group may be open to anywhere."""
    group = config["provider"].get("security_group") or {}
    if not group.get("GroupName"):
        yield "provider.security_group.GroupName", "missing; a named group lets you keep SSH to your own address"
    for index, rule in enumerate(group.get("IpPermissions", [])):
        sources = {r.get("CidrIp") for r in rule.get("IpRanges", [])}
        sources |= {r.get("CidrIpv6") for r in rule.get("Ipv6Ranges", [])}
        if wide := [source for source in sources if source not in ANYWHERE and not _is_narrow(str(source))]:
            yield (
                f"provider.security_group.IpPermissions.{index}",
                f"{wide[0]!r} is no network of at most a /8 (IPv6: /32)",
            )
        if sources & ANYWHERE or not (sources or rule.get("UserIdGroupPairs")):
            path = f"provider.security_group.IpPermissions.{index}"
            yield path, f"is open to {sorted(map(str, sources)) or 'nobody in particular'}; use a tunnel"


def _is_narrow(network: str) -> bool:
    """Whether it is a network, and not half of the internet: two of 0.0.0.0/1 and 128.0.0.0/1 are anywhere."""
    try:
        parsed = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
    return parsed.prefixlen >= (8 if parsed.version == 4 else 32)


def start_commands(config: dict[str, Any]) -> Iterator[Problem]:
    """Token mode before every `ray start`, the dashboard on loopback, and the same settings on head and workers."""
    settings: dict[str, dict[str, str]] = {}
    for kind, must in (("head", ["--head", "--autoscaling-config=~/ray_bootstrap_config.yaml", "--num-cpus=0"]),
                       ("worker", ["--address=$RAY_HEAD_IP:6379"])):  # fmt: skip
        field = f"{kind}_start_ray_commands"
        starts = [(i, c) for i, c in enumerate(config.get(field, [])) if re.search(r"\bray start\b", c)]
        if len(starts) != 1:
            yield field, f"must hold exactly one `ray start`, found {len(starts)}"
            continue
        index, command = starts[0]
        before, _, flags = command.partition("ray start")
        if not TOKEN_MODE.search(before):
            yield f"{field}.{index}", "must export RAY_AUTH_MODE=token before `ray start`, or the cluster is open"
        for flag in must:
            if flag not in flags.split():
                yield f"{field}.{index}", f"must pass {flag}"
        hosts = re.findall(r"--(?:dashboard-host|ray-client-server-host)[= ](\S+)", flags)
        if (kind == "head" and "--dashboard-host=127.0.0.1" not in flags.split()) or set(hosts) - {"127.0.0.1"}:
            yield f"{field}.{index}", f"must keep the dashboard on 127.0.0.1, found {hosts or 'the default'}"
        settings[kind] = dict(EXPORTED.findall(before))
        for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED"):
            if settings[kind].get(name) != "1":
                yield f"{field}.{index}", f"must export {name}=1; set later, Serve ignores it"
    if len(settings) == 2 and settings["head"] != settings["worker"]:
        differ = sorted(n for n in settings["head"].keys() | settings["worker"].keys()
                        if settings["head"].get(n) != settings["worker"].get(n))  # fmt: skip
        yield "worker_start_ray_commands", f"exports other values than the head: {', '.join(differ)}"
    for field in [k for k in config if k.endswith("_commands")]:
        for index, command in enumerate(config[field]):
            if "0.0.0.0" in command or re.search(r"RAY_AUTH_MODE=(?!token\b)", command):
                yield f"{field}.{index}", "opens the cluster (0.0.0.0, or an auth mode other than token)"


def token_file(config: dict[str, Any]) -> Iterator[Problem]:
    """The token comes from a folder outside any checkout."""
    source = config.get("file_mounts", {}).get("~/.ray")
    if not source:
        yield "file_mounts.~/.ray", "missing: the nodes would have no token (mount the folder that holds auth_token)"
    elif not str(source).startswith(("~/", "/")) or str(source).endswith("auth_token"):
        yield "file_mounts.~/.ray", f"must be a folder outside the checkout, found {source!r}"


def installed_versions(config: dict[str, Any]) -> Iterator[Problem]:
    """Exact versions on every node."""
    installs = [c for c in config.get("setup_commands", []) if "pip install" in c]
    text = " ".join(installs)
    if not re.search(r"ray\[[a-z,]+\]==\d+\.\d+\.\d+", text):
        yield "setup_commands", "must install ray[...] at an exact version; head and workers have to agree"
    if not re.search(r"raypipe-\d+\.\d+\.\d+\S*\.whl\b", text):
        yield "setup_commands", "must install raypipe from a wheel that names its version, not by name from an index"
    if installs and not all("--constraint" in c for c in installs):
        yield "setup_commands", "pip must be given --constraint: nodes started on different days must be alike"


def idle_machines_end(config: dict[str, Any]) -> Iterator[Problem]:
    """An idle machine ends within the hour."""
    for path, minutes in [("idle_timeout_minutes", config.get("idle_timeout_minutes", 5))] + [
        (f"available_node_types.{n}.idle_timeout_s", t["idle_timeout_s"] / 60)
        for n, t in config["available_node_types"].items() if t.get("idle_timeout_s") is not None]:  # fmt: skip
        if not 0 < minutes <= MAX_IDLE_MINUTES:
            yield path, f"must be above 0 and at most {MAX_IDLE_MINUTES} minutes: idle machines cost money"


def policy_names_this_cluster(config: dict[str, Any]) -> Iterator[Problem]:
    """The head may only tag and end machines of the cluster its IAM policy names."""
    policy = json.loads((HERE / "iam" / "autoscale.json").read_text())
    named = {value for statement in policy["Statement"] for by_key in statement.get("Condition", {}).values()
             for key, value in by_key.items() if key.endswith("/ray-cluster-name")}  # fmt: skip
    if named != {config["cluster_name"]}:
        yield "cluster_name", f"is {config['cluster_name']!r}, but iam/autoscale.json names {sorted(named)}"


def no_secrets(config: dict[str, Any]) -> Iterator[Problem]:
    """No value may look like a credential."""

    def walk(path: str, value: Any) -> Iterator[Problem]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(f"{path}.{key}" if path else str(key), item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from walk(f"{path}.{index}", item)
        elif isinstance(value, str) and SECRETS.search(value):
            yield path, "looks like a credential; roles and the mounted token replace it"

    yield from walk("", config)


RULES: list[Callable[[dict[str, Any]], Iterator[Problem]]] = [
    node_counts, head_runs_no_tasks, machines, nothing_public, start_commands, token_file, installed_versions,
    idle_machines_end, policy_names_this_cluster, no_secrets,
]  # fmt: skip


def main(argv: list[str]) -> int:
    """Check one file; problems go to stderr."""
    if len(argv) != 1:
        print("usage: python cluster/check.py FILE", file=sys.stderr)
        return 2
    try:
        found = problems(load(Path(argv[0]).read_text()))
    except (OSError, ValueError) as error:
        found = [("(file)", str(error))]
    for path, what in found:
        print(f"{argv[0]}: {path}: {what}", file=sys.stderr)
    if not found:
        print(f"{argv[0]}: fine")
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
