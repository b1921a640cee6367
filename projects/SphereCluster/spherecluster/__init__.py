"""SphereCluster: bottom-up clustering of unit features, in rounds with training.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404
"""

from __future__ import annotations

from typing import Any

from spherecluster import config
from spherecluster.labeler import SphereClusterLabeler
from spherecluster.meta_arch import SphereCluster
from spherecluster.sphere_head import SphereHead
from unreid.contracts import Project

__all__ = ["SphereCluster", "SphereClusterLabeler", "SphereClusterProject", "SphereHead"]


class SphereClusterProject(Project):
    """Bottom-up clusters of unit features [0]; the predecessors of the method by config keys."""

    def add_config(self, cfg: Any) -> None:
        """Declare ``cfg.SPHERECLUSTER``."""
        config.add_config(cfg)

    def check_config(self, cfg: Any) -> None:
        """Raise ValueError if a value is out of range."""
        config.check_config(cfg)
