"""Losses that more than one method uses."""

from __future__ import annotations

from unreid.losses.cluster_nce import cluster_nce
from unreid.losses.hard_triplet import hard_triplet
from unreid.losses.sphere_softmax import sphere_softmax

__all__ = ["cluster_nce", "hard_triplet", "sphere_softmax"]
