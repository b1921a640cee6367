# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Find the edge that absorbs each cluster in a merge pass.

The reference implementation is absorption_reference.py.

Notation: C clusters, E edges.
"""


def offer(const long long[::1] low, const long long[::1] high, const double[::1] values,
          double[::1] time, long long[::1] absorber):
    """See ``absorption_reference.offer``; changes time and absorber in place."""
    cdef Py_ssize_t e
    cdef long long i, j
    cdef double value
    with nogil:
        for e in range(low.shape[0]):
            i = low[e]
            j = high[e]
            value = values[e]
            if value < time[i] and (value < time[j] or (value == time[j] and i < absorber[j])):
                time[j] = value
                absorber[j] = i
