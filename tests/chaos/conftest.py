"""Faults go into the same servers that the stories use."""

from tests.integration.conftest import bucket, cluster_environment, ray_cluster, s3, s3_address, s3_starting

__all__ = ["bucket", "cluster_environment", "ray_cluster", "s3", "s3_address", "s3_starting"]
