"""Reference implementation of the functions of ``merging.pyx`` in numpy.

The rest of that kernel only makes exact merging fast; without it ``greedy_merges`` builds the
same tree one merge at a time.

Notation: C clusters, D channels, P pairs, E edges.
"""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 1024


def squared_distances(
    points: np.ndarray, point: np.ndarray, ids: np.ndarray, num_threads: int = 1
) -> np.ndarray:
    """Return ||points[id] - point||^2 for each id, from the differences.

    Differences avoid cancellation, so equal points are at distance 0 exactly.

    Args:
        points: (C, D) float64.
        ids: (P,) int64 rows of ``points``.
        point: (D,) float64.
        num_threads: Not used.

    Returns:
        (P,) float64.
    """
    apart = np.empty(len(ids))
    for start in range(0, len(ids), BLOCK_ROWS):
        part = points[ids[start : start + BLOCK_ROWS]] - point
        apart[start : start + BLOCK_ROWS] = (part * part).sum(axis=1)
    return apart


def squared_pairs(
    points: np.ndarray, a: np.ndarray, b: np.ndarray, num_threads: int = 1
) -> np.ndarray:
    """Return ||points[a] - points[b]||^2 for each pair, (P,) float64, from the differences."""
    apart = np.empty(len(a))
    for start in range(0, len(a), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        part = points[a[rows]] - points[b[rows]]
        apart[rows] = (part * part).sum(axis=1)
    return apart


def below(
    product: np.ndarray,
    row_part: np.ndarray,
    column_part: np.ndarray,
    factor: float,
    limit: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (P,) rows and columns int64 with row_part + column_part - 2 factor product <= limit.

    Args:
        product: (R, K) float32.
        row_part: (R,) float64.
        column_part: (K,) float64.
        factor: Factor of ``product``.
        limit: Largest value.
    """
    gap = (limit - row_part)[:, None]
    i, j = np.nonzero(column_part - (2 * factor) * product.astype(np.float64) <= gap)
    return i, j


def spanning(low: np.ndarray, high: np.ndarray, count: int, most: int) -> np.ndarray:
    """Return the first ``most`` edges, in the order given, that close no cycle.

    Args:
        low: (E,) int64 first node of each edge.
        high: (E,) int64 second node of each edge.
        count: Number of nodes.
        most: Largest number of edges.

    Returns:
        (at most ``most``,) int64 positions of edges.
    """
    root = list(range(count))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    kept: list[int] = []
    for edge, (i, j) in enumerate(zip(low.tolist(), high.tolist())):
        if len(kept) == most:
            break
        a, b = find(i), find(j)
        if a != b:
            root[a] = b
            kept.append(edge)
    return np.array(kept, dtype=np.int64)
