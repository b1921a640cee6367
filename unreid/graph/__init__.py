"""Neighbour graphs of images: k nearest neighbours, and the k-reciprocal Jaccard distance."""

from __future__ import annotations

from unreid.graph.jaccard import jaccard_distance
from unreid.graph.knn import knn

__all__ = ["jaccard_distance", "knn"]
