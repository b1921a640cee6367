"""SphereCluster: merge clusters bottom-up on the sphere, train on them, merge again.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404
"""

from __future__ import annotations

from spherecluster.config import add_config, check_config
from spherecluster.labeler import SphereClusterLabeler
from spherecluster.meta_arch import SphereCluster
from spherecluster.sphere_head import SphereHead

__all__ = ["SphereCluster", "SphereClusterLabeler", "SphereHead", "add_config", "check_config"]
