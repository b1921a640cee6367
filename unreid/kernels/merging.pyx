# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Merging of clusters: exact distances, nearest-neighbour lists, and spanning forests.

The functions have reference implementations in merging_reference.py. ``Lists``, whose lists remain
valid after merges, has none. Without it unreid.clustering.greedy builds the same tree, one merge at
a time.

Notation: C clusters, D channels, T entries of a list.
"""

import numpy as np

from cython.parallel cimport prange
from libc.math cimport INFINITY


cdef inline double apart(const double* a, const double* b, Py_ssize_t n) noexcept nogil:
    """Return ||a - b||^2 from eight partial sums in a fixed order; symmetric in a and b."""
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0, rest = 0
    cdef double d0, d1, d2, d3, d4, d5, d6, d7
    cdef Py_ssize_t i = 0, whole = n - n % 8
    while i < whole:
        d0 = a[i] - b[i]
        d1 = a[i + 1] - b[i + 1]
        d2 = a[i + 2] - b[i + 2]
        d3 = a[i + 3] - b[i + 3]
        d4 = a[i + 4] - b[i + 4]
        d5 = a[i + 5] - b[i + 5]
        d6 = a[i + 6] - b[i + 6]
        d7 = a[i + 7] - b[i + 7]
        s0 += d0 * d0
        s1 += d1 * d1
        s2 += d2 * d2
        s3 += d3 * d3
        s4 += d4 * d4
        s5 += d5 * d5
        s6 += d6 * d6
        s7 += d7 * d7
        i += 8
    while i < n:
        d0 = a[i] - b[i]
        rest += d0 * d0
        i += 1
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)) + rest


cdef inline int few(Py_ssize_t work, int num_threads) noexcept nogil:
    """Return 1 for work that is too small for several threads, else ``num_threads``."""
    return num_threads if work > 100000 else 1


def squared_distances(const double[:, ::1] points, const double[::1] point, const long long[::1] ids,
                      int num_threads):
    """See the function of the same name in ``merging_reference``."""
    cdef Py_ssize_t r, count = ids.shape[0], n = points.shape[1]
    out = np.empty(count)
    cdef double[::1] values = out
    cdef int threads = few(count * n, num_threads)
    for r in prange(count, nogil=True, num_threads=threads, schedule="static"):
        values[r] = apart(&points[ids[r], 0], &point[0], n)
    return out


def squared_pairs(const double[:, ::1] points, const long long[::1] a, const long long[::1] b,
                  int num_threads):
    """See the function of the same name in ``merging_reference``."""
    cdef Py_ssize_t r, count = a.shape[0], n = points.shape[1]
    out = np.empty(count)
    cdef double[::1] values = out
    cdef int threads = few(count * n, num_threads)
    for r in prange(count, nogil=True, num_threads=threads, schedule="static"):
        values[r] = apart(&points[a[r], 0], &points[b[r], 0], n)
    return out


def below(const float[:, ::1] product, const double[::1] row_part, const double[::1] column_part,
          double factor, double limit):
    """See the function of the same name in ``merging_reference``."""
    cdef Py_ssize_t i, j, rows = product.shape[0], columns = product.shape[1]
    cdef Py_ssize_t found, total = 0, t
    cdef double slope = 2 * factor
    counts_array = np.zeros(rows + 1, np.int64)
    cdef long long[::1] counts = counts_array
    cdef double gap
    with nogil:
        for i in range(rows):
            found = 0
            gap = limit - row_part[i]
            for j in range(columns):
                found = found + (column_part[j] - slope * product[i, j] <= gap)
            counts[i + 1] = counts[i] + found
    total = counts[rows]
    first = np.empty(total, np.int64)
    second = np.empty(total, np.int64)
    cdef long long[::1] out_i = first, out_j = second
    with nogil:
        for i in range(rows):
            if counts[i + 1] == counts[i]:
                continue
            t = counts[i]
            gap = limit - row_part[i]
            for j in range(columns):
                if column_part[j] - slope * product[i, j] <= gap:
                    out_i[t] = i
                    out_j[t] = j
                    t = t + 1
    return first, second


cdef inline int find(int* root, int node) noexcept nogil:
    while root[node] != node:
        root[node] = root[root[node]]
        node = root[node]
    return node


def spanning(const long long[::1] low, const long long[::1] high, Py_ssize_t count,
             Py_ssize_t most):
    """See the function of the same name in ``merging_reference``."""
    cdef int[::1] root = np.arange(count, dtype=np.int32)
    kept_array = np.empty(min(most, low.shape[0]), np.int64)
    cdef long long[::1] kept = kept_array
    cdef Py_ssize_t e, num = 0
    cdef int a, b
    with nogil:
        for e in range(low.shape[0]):
            if num == most:
                break
            a = find(&root[0], low[e])
            b = find(&root[0], high[e])
            if a != b:
                root[a] = b
                kept[num] = e
                num = num + 1
    return kept_array[:num]


cdef class Lists:
    """Lists of the nearest other clusters of each cluster.

    An entry has an exact distance or a lower bound. ``bound`` is a lower bound of the distance to
    each cluster that is not in the list.

    With e the squared distance of two means, n the size and SSE the sum of squared errors of a
    cluster, the distance is D(i, j) = e + part_i + part_j, where part = per_mean SSE / n +
    per_sse SSE + per_size n. If ``ward`` > 0, it is D(i, j) = ward n_i n_j / (n_i + n_j) e.

    ``means``, ``sizes`` and ``sse`` are arrays of the caller that are changed in place.
    """

    cdef double[:, ::1] means
    cdef double[::1] sizes, sse, part, bound, worst, best
    cdef double[:, ::1] values
    cdef int[:, ::1] ids, when
    cdef unsigned char[:, ::1] exact
    cdef unsigned char[::1] sure
    cdef int[::1] filled, bound_low, bound_high, root, version, nearest, worst_at
    cdef double per_mean, per_sse, per_size, ward, slack
    cdef int T, num_threads
    cdef Py_ssize_t D
    cdef readonly dict arrays

    def __init__(self, means, sizes, sse, int T, double per_mean, double per_sse,
                 double per_size, double ward, double slack, int num_threads):
        count = len(sizes)
        self.means, self.sizes, self.sse = means, sizes, sse
        self.D, self.T, self.num_threads = means.shape[1], T, num_threads
        self.per_mean, self.per_sse, self.per_size = per_mean, per_sse, per_size
        self.ward, self.slack = ward, slack
        self.part = per_mean * sse / sizes + per_sse * sse + per_size * sizes
        self.values = np.empty((count, T))
        self.ids = np.empty((count, T), np.int32)
        self.when = np.empty((count, T), np.int32)
        self.exact = np.empty((count, T), np.uint8)
        self.filled = np.zeros(count, np.int32)
        self.bound = np.full(count, -np.inf)
        self.bound_low = np.full(count, -1, np.int32)
        self.bound_high = np.full(count, -1, np.int32)
        self.worst = np.full(count, np.inf)
        self.worst_at = np.zeros(count, np.int32)
        self.root = np.arange(count, dtype=np.int32)
        self.version = np.zeros(count, np.int32)
        self.nearest = np.full(count, -1, np.int32)
        self.best = np.full(count, np.inf)
        self.sure = np.zeros(count, np.uint8)
        self.arrays = {
            "part": np.asarray(self.part), "root": np.asarray(self.root),
            "bound": np.asarray(self.bound), "nearest": np.asarray(self.nearest),
            "best": np.asarray(self.best), "sure": np.asarray(self.sure).view(bool),
            "filled": np.asarray(self.filled),
        }

    cdef inline double value(self, int a, int b) noexcept nogil:
        cdef double e = apart(&self.means[a, 0], &self.means[b, 0], self.D)
        if self.ward > 0:
            return self.ward * (self.sizes[a] * self.sizes[b] / (self.sizes[a] + self.sizes[b])) * e
        return e + (self.part[a] + self.part[b])

    cdef inline void put(self, int row, int other, double value) noexcept nogil:
        """Add an entry, in place of the largest if the list is full; ``worst`` is the largest.

        The caller checks that the value is below ``worst``.
        """
        cdef int t, at
        if self.filled[row] < self.T:
            at = self.filled[row]
            self.filled[row] += 1
        else:
            at = self.worst_at[row]
        self.values[row, at] = value
        self.ids[row, at] = other
        self.when[row, at] = self.version[other]
        self.exact[row, at] = 0
        if self.filled[row] == self.T:
            at = 0
            for t in range(1, self.T):
                if self.values[row, t] > self.values[row, at]:
                    at = t
            self.worst_at[row] = at
            self.worst[row] = self.values[row, at]

    def reset(self, const int[::1] rows):
        """Empty the lists of some clusters, before ``offer``."""
        cdef Py_ssize_t r
        for r in range(rows.shape[0]):
            self.filled[rows[r]] = 0
            self.worst[rows[r]] = INFINITY

    def offer(self, const float[:, ::1] product, const int[::1] rows, const int[::1] columns,
              const double[::1] squares, bint both):
        """Add the columns to the list of each row, with lower bounds from a float32 product.

        Args:
            product: (R, K) float32 inner products of the means of ``rows`` and ``columns``.
            rows, columns: (R,), (K,) int32 clusters.
            squares: (C,) squared norms of the means, reduced by the relative error of the product.
            both: Also add each row to the lists of the columns; only pairs with row < column are
                used.
        """
        cdef Py_ssize_t r, c, R = rows.shape[0], K = columns.shape[0]
        cdef int i, j
        cdef double base, low, e, limit
        cdef double[::1] along = np.empty(K)
        cdef double[::1] lows = np.empty(K)
        cdef double[::1] size = np.empty(K)
        cdef double n, s
        with nogil:
            for c in range(K):
                j = columns[c]
                along[c] = squares[j] + (0.0 if self.ward > 0 else self.part[j])
                size[c] = self.sizes[j]
            for r in range(R):
                i = rows[r]
                if self.ward > 0:
                    base = squares[i]
                    n = self.sizes[i]
                    for c in range(K):
                        e = base + along[c] - 2.0 * product[r, c]
                        lows[c] = self.ward * (n * size[c] / (n + size[c])) * e
                else:
                    base = squares[i] + self.part[i]
                    for c in range(K):
                        lows[c] = base + along[c] - 2.0 * product[r, c]
                if both:
                    for c in range(K):
                        j = columns[c]
                        low = lows[c]
                        if low < self.worst[i] or low < self.worst[j]:
                            if j <= i:
                                continue
                            if low < self.worst[i]:
                                self.put(i, j, low)
                            if low < self.worst[j]:
                                self.put(j, i, low)
                else:
                    limit = self.worst[i]
                    for c in range(K):
                        if lows[c] < limit:
                            j = columns[c]
                            if j != i:
                                self.put(i, j, lows[c])
                                limit = self.worst[i]

    def seal(self, const int[::1] rows, Py_ssize_t num_others):
        """Set ``bound`` of each row after ``offer``: the largest kept entry minus ``slack``.

        It is infinite if the list holds all ``num_others`` clusters.
        """
        cdef Py_ssize_t r
        cdef int i
        for r in range(rows.shape[0]):
            i = rows[r]
            self.bound[i] = self.worst[i] - self.slack if num_others > self.T else INFINITY
            self.bound_low[i] = -1
            self.bound_high[i] = -1

    cdef void tidy(self, int i) noexcept nogil:
        """Replace each entry by the cluster into which it was merged, without duplicates."""
        cdef int t, u, c, kept = 0
        cdef double v
        cdef bint twice
        for t in range(self.filled[i]):
            c = self.root[self.ids[i, t]]
            if c == i:
                continue
            v = self.values[i, t]
            if c != self.ids[i, t] or self.when[i, t] != self.version[c]:
                # D is reducible: a union is no nearer than the nearer of its parts. Each part has
                # an entry in the list, or is at least as far as the bound.
                if v > self.bound[i]:
                    v = self.bound[i]
                self.exact[i, t] = 0
            twice = False
            for u in range(kept):
                if self.ids[i, u] == c:
                    twice = True
                    if v < self.values[i, u]:
                        self.values[i, u] = v
                    self.exact[i, u] = 0
                    break
            if not twice:
                self.values[i, kept] = v
                self.ids[i, kept] = c
                self.when[i, kept] = self.version[c]
                self.exact[i, kept] = self.exact[i, t]
                kept += 1
        self.filled[i] = kept

    cdef inline bint before(self, int i, double v, int c, double w, int d) noexcept nogil:
        """Return whether pair (i, c) at v comes before pair (i, d) at w."""
        cdef int low_c, low_d
        if v != w:
            return v < w
        low_c = c if c < i else i
        low_d = d if d < i else i
        if low_c != low_d:
            return low_c < low_d
        return (i if c < i else c) < (i if d < i else d)

    cdef void settle(self, int i) noexcept nogil:
        """Find the nearest entry, and whether it is proven to be the nearest cluster."""
        cdef int t, at, c, low, high
        cdef double v
        self.tidy(i)
        while True:
            at = -1
            for t in range(self.filled[i]):
                if at < 0 or self.before(i, self.values[i, t], self.ids[i, t],
                                         self.values[i, at], self.ids[i, at]):
                    at = t
            if at < 0:
                self.nearest[i] = -1
                self.best[i] = INFINITY
                self.sure[i] = False
                return
            c = self.ids[i, at]
            v = self.values[i, at]
            if self.exact[i, at]:
                break
            if v > self.bound[i]:
                break
            self.values[i, at] = self.value(i, c)
            self.exact[i, at] = 1
        self.nearest[i] = c
        self.best[i] = v
        low = i if i < c else c
        high = c if i < c else i
        self.sure[i] = self.exact[i, at] and (
            v < self.bound[i]
            or (v == self.bound[i] and (low < self.bound_low[i]
                or (low == self.bound_low[i] and high < self.bound_high[i])))
        )

    def resolve(self, const int[::1] rows):
        """Find the nearest entry of each row by ``settle``, in parallel."""
        cdef Py_ssize_t r
        cdef int threads = few(rows.shape[0] * self.T * 8, self.num_threads)
        for r in prange(rows.shape[0], nogil=True, num_threads=threads,
                        schedule="dynamic", chunksize=64):
            self.settle(rows[r])

    cdef void scan_row(self, int i, const int* others, Py_ssize_t count) noexcept nogil:
        cdef Py_ssize_t r
        cdef int j, t, at
        cdef double v
        self.filled[i] = 0
        self.bound[i] = INFINITY
        at = 0
        for r in range(count):
            j = others[r]
            if j == i:
                continue
            v = self.value(i, j)
            if self.filled[i] == self.T and not self.before(
                i, v, j, self.values[i, at], self.ids[i, at]
            ):
                continue
            t = self.filled[i]
            if t == self.T:
                t = at
            else:
                self.filled[i] += 1
            self.values[i, t] = v
            self.ids[i, t] = j
            self.when[i, t] = self.version[j]
            self.exact[i, t] = 1
            at = 0
            for t in range(1, self.filled[i]):
                if self.before(i, self.values[i, at], self.ids[i, at],
                               self.values[i, t], self.ids[i, t]):
                    at = t
        if count - 1 > self.T:
            j = self.ids[i, at]
            self.bound[i] = self.values[i, at]
            self.bound_low[i] = i if i < j else j
            self.bound_high[i] = j if i < j else i

    def scan(self, const int[::1] rows, const int[::1] others):
        """Fill the lists with exact distances to all others, for ties that bounds leave open."""
        cdef Py_ssize_t r
        cdef int threads = few(rows.shape[0] * others.shape[0] * self.D, self.num_threads)
        for r in prange(rows.shape[0], nogil=True, num_threads=threads,
                        schedule="dynamic", chunksize=1):
            self.scan_row(rows[r], &others[0], others.shape[0])

    def merge(self, const int[::1] low, const int[::1] high):
        """Store the union of each pair of clusters under the larger index; merge their lists."""
        cdef Py_ssize_t p
        cdef int threads = few(low.shape[0] * self.D * 4, self.num_threads)
        for p in prange(low.shape[0], nogil=True, num_threads=threads,
                        schedule="dynamic", chunksize=16):
            self.unite(low[p], high[p])
        for p in range(self.root.shape[0]):
            self.root[p] = self.root[self.root[p]]

    cdef void unite(self, int a, int b) noexcept nogil:
        cdef double na = self.sizes[a], nb = self.sizes[b], n = na + nb, gain
        cdef double wa = na / n, wb = nb / n
        cdef double e = apart(&self.means[a, 0], &self.means[b, 0], self.D)
        cdef double old = wa * self.part[a] + wb * self.part[b] + wa * wb * e
        cdef double bound_a = self.bound[a], bound_b = self.bound[b]
        cdef double va, vb, v, dropped = INFINITY
        cdef int t, u, c, at, kept
        cdef Py_ssize_t d
        for d in range(self.D):
            # Computed from the difference, so that equal means do not change.
            self.means[b, d] = self.means[b, d] + wa * (self.means[a, d] - self.means[b, d])
        self.sse[b] = self.sse[a] + self.sse[b] + na * nb / n * e
        self.sizes[b] = n
        self.part[b] = self.per_mean * self.sse[b] / n + self.per_sse * self.sse[b]
        self.part[b] += self.per_size * n
        gain = self.part[b] - old
        self.root[a] = b
        self.version[b] += 1
        # D(A u B, C) = wa D(A, C) + wb D(B, C) + gain; with ``ward``, it is at least the smaller of
        # D(A, C) and D(B, C). The entries of b come first, each combined with the value or bound of
        # a. Then come the entries that only a has.
        kept = 0
        for t in range(self.filled[b]):
            c = self.ids[b, t]
            if c == a or c == b:
                continue
            vb = self.values[b, t]
            va = bound_a
            for u in range(self.filled[a]):
                if self.ids[a, u] == c:
                    va = self.values[a, u]
                    if self.when[a, u] != self.when[b, t]:
                        va = min(va, bound_a)
                        vb = min(vb, bound_b)
                    self.ids[a, u] = -1
                    break
            self.values[b, kept] = self.joint(va, vb, wa, wb, gain)
            self.ids[b, kept] = c
            self.when[b, kept] = self.when[b, t]
            self.exact[b, kept] = 0
            kept += 1
        for u in range(self.filled[a]):
            c = self.ids[a, u]
            if c < 0 or c == b or c == a:
                continue
            v = self.joint(self.values[a, u], bound_b, wa, wb, gain)
            if kept < self.T:
                at = kept
                kept += 1
            else:
                at = 0
                for t in range(1, kept):
                    if self.values[b, t] > self.values[b, at]:
                        at = t
                if v >= self.values[b, at]:
                    dropped = min(dropped, v)
                    continue
                dropped = min(dropped, self.values[b, at])
            self.values[b, at] = v
            self.ids[b, at] = c
            self.when[b, at] = self.when[a, u]
            self.exact[b, at] = 0
        self.filled[b] = kept
        self.filled[a] = 0
        self.bound[b] = min(self.joint(bound_a, bound_b, wa, wb, gain), dropped)
        self.bound_low[b] = -1
        self.bound_high[b] = -1
        self.sure[b] = False

    cdef inline double joint(self, double va, double vb, double wa, double wb,
                             double gain) noexcept nogil:
        if self.ward > 0:
            return min(va, vb) - self.slack
        return wa * va + wb * vb + gain - self.slack
