"""Flow of a random walker on the kNN graph, the input of the map equation.

[0] Rosvall, Bergstrom: Maps of random walks on complex networks, 2008,
    https://arxiv.org/abs/0707.0609
[1] Lambiotte, Rosvall: Ranking and clustering of nodes in networks with smart teleportation,
    2012, https://arxiv.org/abs/1112.5252

Notation: N images, k neighbours, E links, n nodes of a level (images, or modules of them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from unreid.checks import check_number

#: Damping factor of PageRank.
TELEPORTATION = 0.15


@dataclass(frozen=True)
class Level:
    """One level of the graph in the search for modules.

    Attributes:
        starts: (n + 1,) int64, row starts of the CSR matrix of the flow i -> j plus j -> i,
            without self links.
        neighbours: (m,) int32, its columns.
        weights: (m,) float64, its values.
        flow: (n,) float64, share of the walker's steps that end in each node.
        enter: (n,) float64, share of the steps that enter each node.
        exit: (n,) float64, share of the steps that leave each node.
    """

    starts: np.ndarray
    neighbours: np.ndarray
    weights: np.ndarray
    flow: np.ndarray
    enter: np.ndarray
    exit: np.ndarray

    def __len__(self) -> int:
        return len(self.flow)


def knn_links(indices: np.ndarray, similarities: np.ndarray, min_similarity: float) -> csr_array:
    """Return the directed graph of neighbours with similarity >= ``min_similarity``.

    Args:
        indices: (N, k) integer neighbours as ``unreid.graph.knn`` returns them; entries < 0
            mean no neighbour. Self links are ignored.
        similarities: (N, k) floating, their cosines.
        min_similarity: In [0, 1]; smaller similarities and 0 give no link.

    Returns:
        (N, N) float64 CSR, entry (i, j) the weight of the link i -> j.

    Raises:
        ValueError: The shapes differ, an index is >= N, or a similarity is not finite.
    """
    indices, similarities = np.asarray(indices), np.asarray(similarities)
    check_number("min_similarity", min_similarity, 0, 1)
    if indices.ndim != 2 or indices.shape != similarities.shape:
        raise ValueError(
            "indices and similarities must have the same shape (N, k), got"
            f" {indices.shape} and {similarities.shape}"
        )
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got {indices.dtype}")
    n, k = indices.shape
    if indices.size and indices.max() >= n:
        raise ValueError(f"indices must be < {n}, the number of rows, got {indices.max()}")
    if not np.isfinite(similarities).all():
        raise ValueError("similarities must be finite, got NaN or infinity")
    rows = np.repeat(np.arange(n), k)
    columns, values = indices.ravel(), similarities.ravel().astype(np.float64)
    # The threshold is rounded to the dtype of the similarities, so that it is inclusive.
    lowest = float(similarities.dtype.type(min_similarity))
    keep = (columns >= 0) & (columns != rows) & (values >= lowest) & (values > 0)
    links = csr_array((values[keep], (rows[keep], columns[keep])), shape=(n, n))
    links.sum_duplicates()
    return links


def link_flow(
    links: csr_array, *, tolerance: float = 1e-13, max_iterations: int = 500
) -> csr_array:
    """Return the flow of each link: its share of the walker's steps.

    The visit rate p is PageRank with unrecorded teleportation to the start of a random link [1]:
    p = .85 p P + (.15 + .85 p(dangling)) v, where v_i is the share of the links of i in the sum of
    all weights. The flow is one step along the links, F_ij = p_i P_ij, divided by its sum.

    Args:
        links: (N, N) non-negative weights.
        tolerance: Stop when p changes by less than this in total.
        max_iterations: Largest number of iterations (.85 ** 500 is 1e-35).

    Returns:
        (N, N) float64 CSR with sum 1, or without entries if there are no links.
    """
    if links.nnz == 0:
        return links
    out = np.asarray(links.sum(axis=1)).ravel()
    jump = out / out.sum()
    dangling = out == 0
    steps = links.copy()
    steps.data = links.data / np.repeat(out, np.diff(links.indptr))
    pull = steps.T.tocsr()
    p = jump
    for _ in range(max_iterations):
        caught = TELEPORTATION + (1 - TELEPORTATION) * p[dangling].sum()
        after = (1 - TELEPORTATION) * (pull @ p) + caught * jump
        after /= after.sum()
        change = np.abs(after - p).sum()
        p = after
        if change < tolerance:
            break
    steps.data *= np.repeat(p, np.diff(links.indptr))
    steps.data /= steps.data.sum()
    return steps


def leaf_level(flow: csr_array) -> Level:
    """Return the level whose nodes are the images."""
    enter = np.asarray(flow.sum(axis=0)).ravel()
    leave = np.asarray(flow.sum(axis=1)).ravel()
    both = (flow + flow.T).tocsr()
    both.sort_indices()
    return Level(
        both.indptr.astype(np.int64),
        both.indices.astype(np.int32),
        np.ascontiguousarray(both.data, dtype=np.float64),
        enter.copy(),
        enter,
        leave,
    )


def module_rates(
    level: Level, modules: np.ndarray, num_modules: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return flow, enter and exit rates of modules, (num_modules,) float64 each.

    Args:
        level: Graph with n nodes.
        modules: (n,) ids in 0..num_modules-1.
        num_modules: Number of modules.
    """
    rows = np.repeat(modules, np.diff(level.starts))
    inside = rows == modules[level.neighbours]
    kept = np.bincount(rows[inside], weights=level.weights[inside], minlength=num_modules) / 2

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(modules, weights=values, minlength=num_modules)

    # Rounding may give a closed module a small negative rate.
    enter, leave = (np.maximum(total(x) - kept, 0.0) for x in (level.enter, level.exit))
    return total(level.flow), enter, leave


def aggregate(level: Level, modules: np.ndarray, num_modules: int) -> Level:
    """Return the level whose nodes are the modules of this one.

    Args:
        level: Graph with n nodes.
        modules: (n,) ids in 0..num_modules-1, each used.
        num_modules: Number of modules.
    """
    rows = np.repeat(modules, np.diff(level.starts))
    columns = modules[level.neighbours]
    apart = rows != columns
    shape = (num_modules, num_modules)
    both = csr_array((level.weights[apart], (rows[apart], columns[apart])), shape=shape)
    both.sum_duplicates()
    return Level(
        both.indptr.astype(np.int64),
        both.indices.astype(np.int32),
        np.ascontiguousarray(both.data, dtype=np.float64),
        *module_rates(level, modules, num_modules),
    )
