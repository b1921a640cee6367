"""Losses that more than one method uses."""

from __future__ import annotations

from unreid.losses.cluster_nce import cluster_nce

__all__ = ["cluster_nce"]
