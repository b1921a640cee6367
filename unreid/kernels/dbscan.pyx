# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""DBSCAN on a sparse symmetric distance matrix, without copying the matrix.

Notation: N images, E stored entries.
"""

import numpy as np

ctypedef fused real:
    float
    double


cdef int _root(int *parent, int i) noexcept nogil:
    """Return the root of i, with path halving."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


cdef void _join(int *parent, int i, int j) noexcept nogil:
    """Join the trees of i and j; the root with the smaller index remains a root."""
    i = _root(parent, i)
    j = _root(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


def label(const long long[::1] indptr, const int[::1] columns, const real[::1] values, double eps,
          Py_ssize_t min_samples):
    """Return the labels (N,) int64; -1 is noise.

    Clusters are numbered in the order of their first core image. A border image has the smallest
    label among its core neighbours.

    Args:
        indptr, columns, values: CSR (N, N), symmetric, with E entries; the diagonal counts as 0,
            whether it is stored or not.
        eps: Largest distance of neighbours, compared in the dtype of ``values``.
        min_samples: Minimum number of neighbours of a core image, including the image itself.
    """
    cdef Py_ssize_t num = indptr.shape[0] - 1, i, e, near
    cdef real limit = <real> eps
    cdef long long next_id = 0
    labels = np.full(num, -1, dtype=np.int64)
    cdef long long[::1] out = labels
    cdef int[::1] parent = np.arange(num, dtype=np.int32)
    cdef char[::1] core = np.zeros(num, dtype=np.int8)
    with nogil:
        for i in range(num):
            near = 1
            for e in range(indptr[i], indptr[i + 1]):
                near += values[e] <= limit and columns[e] != i
            core[i] = near >= min_samples
        for i in range(num):
            if not core[i]:
                continue
            for e in range(indptr[i], indptr[i + 1]):
                if columns[e] < i and values[e] <= limit and core[columns[e]]:
                    _join(&parent[0], <int> i, columns[e])
        for i in range(num):
            if core[i]:
                if parent[i] == i:
                    out[i] = next_id
                    next_id += 1
                else:
                    out[i] = out[_root(&parent[0], <int> i)]
        for i in range(num):
            if not core[i]:
                continue
            for e in range(indptr[i], indptr[i + 1]):
                if values[e] <= limit and not core[columns[e]] and (
                        out[columns[e]] < 0 or out[columns[e]] > out[i]):
                    out[columns[e]] = out[i]
    return labels
