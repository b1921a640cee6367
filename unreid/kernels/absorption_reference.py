"""The reference implementation of ``absorption.pyx`` in Python.

Notation: C clusters, E edges.
"""

from __future__ import annotations

import numpy as np


def offer(
    low: np.ndarray,
    high: np.ndarray,
    values: np.ndarray,
    time: np.ndarray,
    absorber: np.ndarray,
) -> None:
    """Update in place which edge absorbs each cluster.

    Cluster j is absorbed by the smallest edge (value, i, j), i < j, such that i is not absorbed by
    a smaller edge. Therefore edges that end at i must be offered before edges that start at i.

    Args:
        low: (E,) int64 cluster i of each edge.
        high: (E,) int64 cluster j > i of each edge.
        values: (E,) float64 distances.
        time: (C,) float64 distance at which each cluster is absorbed, inf: not yet.
        absorber: (C,) int64 cluster that absorbs it.
    """
    for i, j, value in zip(low.tolist(), high.tolist(), values.tolist()):
        # The edge that absorbs i at an equal value has a smaller pair of ids than (i, j).
        alive = value < time[i]
        if alive and (value < time[j] or (value == time[j] and i < absorber[j])):
            time[j], absorber[j] = value, i
