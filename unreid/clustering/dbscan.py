"""DBSCAN on a precomputed sparse distance; absent entries are farther than eps.

[0] Ester et al., A density-based algorithm for discovering clusters, KDD 1996.
[1] scikit-learn, sklearn.cluster.DBSCAN(metric="precomputed"), whose labels these equal.

Notation: N images.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from unreid.checks import check_integer, check_number
from unreid.kernels import dbscan_reference, kernel

#: Rows of a dense distance compared at once, which bounds the memory.
ROWS_AT_ONCE = 1024


def check_distance(name: str, distance: np.ndarray | sparse.sparray | sparse.spmatrix) -> None:
    """Check that ``distance`` is a square matrix without NaN."""
    shape = getattr(distance, "shape", None)
    if shape is None:
        raise TypeError(f"{name} must be a matrix (N, N), got {type(distance).__name__}")
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"{name} must have shape (N, N) with N >= 1, got {tuple(shape)}")
    values = np.asarray(distance.data if sparse.issparse(distance) else distance)
    # The minimum is NaN if any entry is, and needs no mask of the size of the matrix.
    if values.size and np.isnan(values.min()):
        raise ValueError(f"{name} must not contain NaN")


def _entries(distance: np.ndarray | sparse.sparray, eps: float) -> tuple[np.ndarray, ...]:
    """Return row pointers (N + 1,) int64, columns int32 and values of the entries.

    A CSR matrix is not copied. Of a dense matrix only the entries <= eps are returned.
    """
    if sparse.issparse(distance):
        csr = sparse.csr_array(distance)
        values = csr.data if csr.dtype in (np.float32, np.float64) else csr.data.astype(np.float64)
        return csr.indptr.astype(np.int64), csr.indices.astype(np.int32, copy=False), values
    dense = np.asarray(distance)
    counts, columns = [np.zeros(1, dtype=np.int64)], []
    for start in range(0, len(dense), ROWS_AT_ONCE):
        rows, cols = np.nonzero(dense[start : start + ROWS_AT_ONCE] <= eps)
        counts.append(np.bincount(rows, minlength=len(dense[start : start + ROWS_AT_ONCE])))
        columns.append(cols.astype(np.int32))
    found = np.concatenate(columns)
    return np.cumsum(np.concatenate(counts)), found, np.zeros(len(found), dtype=np.float32)


def dbscan(
    distance: np.ndarray | sparse.sparray | sparse.spmatrix, eps: float, min_samples: int
) -> np.ndarray:
    """Return DBSCAN labels with scikit-learn's numbering.

    A core has at least ``min_samples`` images, itself included, within distance ``eps``
    (inclusive). Cores within ``eps`` of each other are in one cluster. Ids are in the order of the
    first core of each cluster. Any other image within ``eps`` of cores gets the lowest of their
    ids.

    Args:
        distance: (N, N) symmetric, >= 0. Sparse: an absent entry is farther than ``eps``, but an
            absent diagonal entry is 0.
        eps: Radius, > 0.
        min_samples: >= 1.

    Returns:
        (N,) int64, -1 for noise.
    """
    check_distance("distance", distance)
    eps = check_number("eps", eps, 0.0, open_minimum=True)
    min_samples = check_integer("min_samples", min_samples, 1)
    indptr, columns, values = _entries(distance, eps)
    return (kernel("dbscan") or dbscan_reference).label(indptr, columns, values, eps, min_samples)
