"""Reference implementation of ``ranking.pyx`` in numpy: same names, arguments and results.

Notation: Q queries, G gallery images, R matches of all queries together.
"""

from __future__ import annotations

import numpy as np


def match_ranks(
    distances: np.ndarray,
    matches: np.ndarray,
    match_ends: np.ndarray,
    removed: np.ndarray,
    removed_ends: np.ndarray,
    threads: int = 1,
) -> np.ndarray:
    """Return the rank of every match: the number of kept gallery images before it.

    Image g comes before match p when it is closer, or as close with g < p.

    Args:
        distances: (Q, G) float32.
        matches: (R,) int64 gallery indices, those of query 0 first, ...
        match_ends: (Q + 1,) int64; query q owns ``matches[match_ends[q]:match_ends[q + 1]]``.
        removed: Gallery images that each query excludes, in the form of ``matches``.
        removed_ends: (Q + 1,) int64, in the form of ``match_ends``.
        threads: Not used.

    Returns:
        (R,) int64 ranks from 0, in the order of ``matches``.
    """
    ranks = np.empty(len(matches), dtype=np.int64)
    index = np.arange(distances.shape[1])
    for q, row in enumerate(distances):
        gone = removed[removed_ends[q] : removed_ends[q + 1]]
        for r in range(match_ends[q], match_ends[q + 1]):
            p = matches[r]
            before = (row < row[p]) | ((row == row[p]) & (index < p))
            ranks[r] = before.sum() - before[gone].sum()
    return ranks
