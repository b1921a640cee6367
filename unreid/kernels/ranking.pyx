# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Compute the rank of each match by counting the gallery images before it, without sorting.

Notation: Q queries, G gallery images, R matches of all queries together.
"""

from cython.parallel cimport prange

import numpy as np


cdef long long _before(const float *row, Py_ssize_t num, Py_ssize_t match, const long long *gone,
                       Py_ssize_t num_gone) noexcept nogil:
    """Return the number of images before ``match``, without those in ``gone``."""
    cdef float own = row[match]
    cdef Py_ssize_t g
    cdef int closer = 0
    cdef long long kept
    for g in range(match):
        closer += row[g] <= own
    for g in range(match + 1, num):
        closer += row[g] < own
    kept = closer
    for g in range(num_gone):
        kept -= row[gone[g]] < own or (row[gone[g]] == own and gone[g] < match)
    return kept


cdef void _rank_query(const float *row, Py_ssize_t num, const long long *matches,
                      Py_ssize_t num_matches, const long long *gone, Py_ssize_t num_gone,
                      long long *out) noexcept nogil:
    cdef Py_ssize_t r
    for r in range(num_matches):
        out[r] = _before(row, num, matches[r], gone, num_gone)


def match_ranks(const float[:, ::1] distances, const long long[::1] matches,
                const long long[::1] match_ends, const long long[::1] removed,
                const long long[::1] removed_ends, int threads=1):
    """Return the rank of every match: the number of gallery images before it.

    Image g comes before match p if its distance is smaller, or equal with g < p. Images removed for
    the query are not counted.

    Args:
        distances: (Q, G) float32.
        matches: (R,) int64 gallery indices, concatenated in the order of the queries.
        match_ends: (Q + 1,) int64; query q has ``matches[match_ends[q]:match_ends[q + 1]]``.
        removed, removed_ends: Gallery indices to leave out for each query, in the same format.
        threads: OpenMP threads; the result does not depend on it.

    Returns:
        (R,) int64 ranks from 0, in the order of ``matches``.
    """
    cdef Py_ssize_t q, queries = distances.shape[0], num = distances.shape[1]
    ranks = np.empty(matches.shape[0], dtype=np.int64)
    cdef long long[::1] out = ranks
    cdef const long long *gone = NULL
    if matches.shape[0] == 0:
        return ranks
    if removed.shape[0]:
        gone = &removed[0]
    for q in prange(queries, nogil=True, num_threads=threads, schedule="dynamic", chunksize=16):
        if match_ends[q + 1] > match_ends[q]:
            _rank_query(&distances[q, 0], num, &matches[match_ends[q]],
                        match_ends[q + 1] - match_ends[q], gone + removed_ends[q],
                        removed_ends[q + 1] - removed_ends[q], &out[match_ends[q]])
    return ranks
