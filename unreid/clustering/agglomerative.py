"""Bottom-up merging on one camera's precomputed distance, cut at a number of clusters.

[0] Mullner, Modern hierarchical, agglomerative clustering algorithms, 2011, arXiv:1109.2378.
[1] scikit-learn, sklearn.cluster.AgglomerativeClustering(metric="precomputed").

Notation: N images.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import linkage as scipy_linkage

from unreid.checks import check_choice, check_integer
from unreid.clustering.dbscan import check_distance
from unreid.clustering.partition import compact

LINKAGES = ("average", "complete", "single")


def _condensed(distance: np.ndarray | sparse.sparray | sparse.spmatrix) -> np.ndarray:
    """Return the upper triangle, row by row, (N (N - 1) / 2,) double; absent entries are 1."""
    num = distance.shape[0]
    if not sparse.issparse(distance):
        return np.asarray(distance, dtype=np.float64)[np.triu_indices(num, 1)]
    upper = np.ones(num * (num - 1) // 2, dtype=np.float64)
    coo = sparse.coo_array(distance)
    kept = coo.col > coo.row
    rows, cols = coo.row[kept].astype(np.int64), coo.col[kept].astype(np.int64)
    upper[num * rows - rows * (rows + 1) // 2 + cols - rows - 1] = coo.data[kept]
    return upper


def _cut(tree: np.ndarray, num: int, num_clusters: int) -> np.ndarray:
    """Return the labels after the first N - C merges of a scipy tree (sorted by height)."""
    parent = np.arange(2 * num - 1)
    merges = num - num_clusters
    for step in range(merges):
        parent[int(tree[step, 0])] = parent[int(tree[step, 1])] = num + step
    # Parents have larger ids, so one sweep in descending order finds the root of every node.
    for node in range(num + merges - 1, -1, -1):
        parent[node] = parent[parent[node]]
    return parent[:num]


def agglomerative(
    distance: np.ndarray | sparse.sparray | sparse.spmatrix,
    num_clusters: int,
    linkage: str = "average",
) -> np.ndarray:
    """Merge the two nearest clusters until ``num_clusters`` are left.

    For the images of one camera: memory is N (N - 1) / 2 distances in float64.

    Args:
        distance: (N, N) symmetric; only the upper triangle is read. Sparse: absent is 1.0.
        num_clusters: >= 1; if N is smaller, each image is its own cluster.
        linkage: "average", "complete" or "single".

    Returns:
        (N,) int64, ids in order of first appearance; the same partition as scikit-learn.
    """
    check_distance("distance", distance)
    num_clusters = check_integer("num_clusters", num_clusters, 1)
    check_choice("linkage", linkage, LINKAGES)
    num = distance.shape[0]
    if num_clusters >= num:
        return np.arange(num, dtype=np.int64)
    tree = scipy_linkage(_condensed(distance), method=linkage)
    return compact(_cut(tree, num, num_clusters))
