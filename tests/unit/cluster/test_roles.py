"""The roles of cluster/: what head and workers may do on AWS, and nothing else."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest

CLUSTER = Path(__file__).resolve().parents[3] / "cluster"


def policy(name: str) -> list[dict[str, Any]]:
    text = (CLUSTER / "iam" / name).read_text().replace("BUCKET", "mine").replace("PREFIX", "raypipe")
    return json.loads(text)["Statement"]


def allows(statements: list[dict[str, Any]], action: str, resource: str, **context: str) -> bool:
    """A dumb reading of IAM: Allow only, exact actions, * in resources, StringEquals and StringLikeIfExists."""

    def as_list(value: str | list[str]) -> list[str]:
        return [value] if isinstance(value, str) else value

    def holds(operator: str, key: str, wanted: str | list[str]) -> bool:
        given = context.get(key.replace(":", "_").replace("/", "_").replace("-", "_"))
        if given is None:
            return operator.endswith("IfExists")
        return any(fnmatch.fnmatchcase(given, w) for w in as_list(wanted))

    return any(
        action in as_list(s["Action"])
        and any(fnmatch.fnmatchcase(resource, r) for r in as_list(s["Resource"]))
        and all(holds(op, k, v) for op, keys in s.get("Condition", {}).items() for k, v in keys.items())
        for s in statements
    )


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"])
def test_s3_policy_allows_objects_under_its_prefix_only(action):
    s3 = policy("s3.json")
    assert allows(s3, action, "arn:aws:s3:::mine/raypipe/models/m/versions/1/manifest.json")
    for other in ("mine/raypipe-other/x", "mine/x", "other/raypipe/x"):
        assert not allows(s3, action, f"arn:aws:s3:::{other}")


def test_s3_policy_lists_its_prefix_only_and_lets_arrow_see_the_bucket():
    s3 = policy("s3.json")
    assert allows(s3, "s3:ListBucket", "arn:aws:s3:::mine", s3_prefix="raypipe/runs/")
    assert allows(s3, "s3:ListBucket", "arn:aws:s3:::mine")  # HeadBucket
    assert not allows(s3, "s3:ListBucket", "arn:aws:s3:::mine", s3_prefix="secret/")
    assert not allows(s3, "s3:ListBucket", "arn:aws:s3:::other")


def test_s3_policy_grants_nothing_else():
    actions = {a for s in policy("s3.json") for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    assert all(a.startswith("s3:") and "*" not in a for a in actions)
    assert not actions & {"s3:PutBucketPolicy", "s3:PutObjectAcl", "s3:DeleteBucket", "s3:PutBucketAcl"}


def test_head_policy_ends_only_its_own_machines_and_passes_only_the_worker_role():
    head, machine = policy("autoscale.json"), "arn:aws:ec2:us-west-2:1:instance/i-1"
    ours = {"ec2_ResourceTag_ray_cluster_name": "raypipe"}
    assert allows(head, "ec2:TerminateInstances", machine, **ours)
    assert not allows(head, "ec2:TerminateInstances", machine)
    started = {"ec2_MetadataHttpTokens": "required", "aws_RequestTag_ray_cluster_name": "raypipe"}
    assert allows(head, "ec2:RunInstances", machine, **started)
    assert not allows(head, "ec2:RunInstances", machine, **{**started, "ec2_MetadataHttpTokens": "optional"})
    to_ec2 = {"iam_PassedToService": "ec2.amazonaws.com"}
    assert allows(head, "iam:PassRole", "arn:aws:iam::1:role/raypipe-node", **to_ec2)
    assert not allows(head, "iam:PassRole", "arn:aws:iam::1:role/raypipe-head", **to_ec2)


def test_only_ec2_may_take_the_roles():
    (statement,) = policy("trust.json")
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
