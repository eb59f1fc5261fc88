"""The address of a real head. Tests in `cluster/` start clusters of their own, beside which this one must not run."""

from __future__ import annotations

import ray

from hard_ray.orchestration.cluster.address import check_address


def test_the_head_of_a_cluster_is_let_through(cluster: None):
    check_address(ray.get_runtime_context().gcs_address)
