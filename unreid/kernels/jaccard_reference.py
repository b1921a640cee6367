"""Reference implementation of ``jaccard.pyx`` in numpy and scipy: same names, same results.

Notation: N images, K neighbours, E entries of a sparse matrix.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

#: Minima are summed in integer multiples of 1 / UNITS, so that sums are exact.
UNITS = 2.0**30

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]


def _links(indices: np.ndarray, width: int) -> sparse.csr_array:
    """Return (N, N) int32 ones at the first ``width`` neighbours of each row."""
    num, width = len(indices), min(width, indices.shape[1])
    columns = indices[:, :width].reshape(-1)
    ones = np.ones(len(columns), dtype=np.int32)
    return sparse.csr_array((ones, columns, np.arange(0, num * width + 1, width)), shape=(num, num))


def expand(
    indices: np.ndarray, width: int, half_width: int, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return expanded k-reciprocal sets: half sets with more than two thirds inside are joined.

    Args:
        indices: (N, K) int32 neighbours, self first.
        width: Columns of the set, clipped to K.
        half_width: Columns of the half set, clipped to K.
        threads: Not used.

    Returns:
        indptr (N + 1,) int64 and sorted columns (E,) int32.
    """
    full, half = _links(indices, width), _links(indices, half_width)
    mutual, half_mutual = full.multiply(full.T).tocsr(), half.multiply(half.T).tocsr()
    sizes = half_mutual.sum(axis=1)
    shared = (mutual @ half_mutual.T).multiply(mutual).tocoo()
    joins = 3 * shared.data > 2 * sizes[shared.col]
    joined = sparse.csr_array(
        (np.ones(int(joins.sum()), np.int32), (shared.row[joins], shared.col[joins])),
        shape=full.shape,
    )
    union = (mutual + joined @ half_mutual).tocsr()
    union.sort_indices()
    return union.indptr.astype(np.int64), union.indices.astype(np.int32)


def mean_rows(
    indptr: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    neighbours: np.ndarray,
    threads: int = 1,
) -> Csr:
    """Replace each row of a sparse matrix by the mean over the rows of its neighbours.

    Args:
        indptr: Row starts of the CSR matrix (N, N).
        columns: Column indices of the CSR matrix.
        values: float32 values of the CSR matrix.
        neighbours: (N, k2) int32.
        threads: Not used.

    Returns:
        CSR with sorted columns: indptr (N + 1,) int64, columns int32, values float32.
    """
    num, k2 = neighbours.shape
    matrix = sparse.csr_array((values.astype(np.float64), columns, indptr), shape=(num, num))
    mean = (_links(neighbours, k2).astype(np.float64) @ matrix).tocsr()
    mean.sort_indices()
    return (
        mean.indptr.astype(np.int64),
        mean.indices.astype(np.int32),
        (mean.data / k2).astype(np.float32),
    )


def jaccard_rows(
    indptr: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    num_rows: int,
    first_column: int,
    max_distance: float,
    threads: int = 1,
) -> Csr:
    """Return Jaccard distances 1 - s / (2 - s) of rows that sum to one; s sums the minima.

    Args:
        indptr: Row starts of the CSR matrix (N, N).
        columns: Column indices of the CSR matrix, sorted within a row.
        values: float32 values of the CSR matrix, >= 0.
        num_rows: Rows to compute, from 0.
        first_column: First column to return.
        max_distance: Largest entry to return; entries of exactly 1 are omitted.
        threads: Not used.

    Returns:
        CSR of shape (num_rows, N) with sorted columns and 0 on the diagonal.
    """
    num = len(indptr) - 1
    amounts = np.maximum(np.rint(values.astype(np.float64) * UNITS), 1.0).astype(np.int64)
    matrix = sparse.csr_array((amounts, columns, indptr), shape=(num, num))
    inverted = matrix.tocsc()
    pointers, parts, data = [0], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for i in range(num_rows):
        mine = slice(indptr[i], indptr[i + 1])
        lists = [slice(inverted.indptr[c], inverted.indptr[c + 1]) for c in columns[mine]]
        who = np.concatenate([inverted.indices[s] for s in lists])
        minima = [np.minimum(v, inverted.data[s]) for v, s in zip(amounts[mine], lists)]
        found, place = np.unique(who, return_inverse=True)
        # Integers far below 2^53: exact in float64, in any order.
        shared = np.bincount(place, np.concatenate(minima), len(found)) / UNITS
        distance = np.maximum(0.0, (1.0 - shared / (2.0 - shared)).astype(np.float32))
        distance[found == i] = 0.0
        keep = (distance < 1.0) & (distance <= max_distance) & (found >= first_column)
        parts.append(found[keep].astype(np.int32))
        data.append(distance[keep])
        pointers.append(pointers[-1] + int(keep.sum()))
    return np.asarray(pointers, dtype=np.int64), np.concatenate(parts), np.concatenate(data)
