"""Reference implementation of ``dbscan.pyx`` in numpy and scipy: same names, arguments and results.

Notation: N images, E entries.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


def label(
    indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, eps: float, min_samples: int
) -> np.ndarray:
    """Return the labels (N,) int64 in the order of each cluster's first core, -1 for noise.

    Args:
        indptr: Row starts of the CSR matrix.
        columns: Column indices of the CSR matrix.
        values: Values of the CSR matrix (N, N), symmetric; the diagonal is 0, stored or not.
        eps: Largest distance of neighbours, compared in the dtype of ``values``.
        min_samples: Neighbours, the image itself included, of a core image.
    """
    num = len(indptr) - 1
    rows = np.repeat(np.arange(num, dtype=np.int32), np.diff(indptr))
    near = (values <= eps) & (rows != columns)
    rows, columns = rows[near], columns[near]
    core = np.bincount(rows, minlength=num) + 1 >= min_samples
    labels = np.full(num, -1, dtype=np.int64)
    cores = np.flatnonzero(core)
    if not cores.size:
        return labels
    edges = core[rows] & core[columns]
    ones = np.ones(int(edges.sum()), dtype=np.int8)
    graph = sparse.csr_array((ones, (rows[edges], columns[edges])), shape=(num, num))
    component = connected_components(graph, directed=False)[1][cores]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    labels[cores] = np.argsort(np.argsort(first))[inverse]
    border = core[rows] & ~core[columns]
    reached = np.full(num, len(first), dtype=np.int64)
    np.minimum.at(reached, columns[border], labels[rows[border]])
    joined = reached < len(first)
    labels[joined] = reached[joined]
    return labels
