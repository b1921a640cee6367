"""Cluster memories: centroids that are kept between batches."""

from __future__ import annotations

from unreid.memory.cluster_memory import ClusterMemory

__all__ = ["ClusterMemory"]
