# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Candidate lists from blocks of a quantized product, and inner products summed in double.

A quantized value a of a similarity s has the error bound |a - s| <= slack / 2 + r, where r is the
rounding error of its number format. A list keeps every entry that may be among the ``wanted`` best:
its value is at most twice the bound below the ``wanted``-th best value so far. ``finish`` computes
the exact similarities of the kept entries.

Notation: N images, D channels, P pairs, M capacity of a list.
"""

from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, frexp, ldexp
from libc.stdlib cimport free, malloc

import numpy as np

cdef extern from *:
    """
    /* Sixteen partial sums, added in a fixed order. The product of two floats is exact in double,
       so fused multiply-add instructions do not change the result. */
    static inline double unreid_dot(const float *a, const float *b, Py_ssize_t n) {
        double lane[16] = {0};
        double sum = 0;
        Py_ssize_t i, l;
        for (i = 0; i + 16 <= n; i += 16)
            for (l = 0; l < 16; l++) lane[l] += (double)a[i + l] * (double)b[i + l];
        for (l = 0; i < n; i++, l++) lane[l] += (double)a[i] * (double)b[i];
        for (l = 0; l < 16; l++) sum += lane[l];
        return sum;
    }
    /* Four products at once, which read four rows of memory in parallel; summed as above. */
    static inline void unreid_dot4(const float *a, const float *b0, const float *b1,
                                   const float *b2, const float *b3, Py_ssize_t n, double *out) {
        double l0[16] = {0}, l1[16] = {0}, l2[16] = {0}, l3[16] = {0};
        Py_ssize_t i, l;
        for (i = 0; i + 16 <= n; i += 16)
            for (l = 0; l < 16; l++) {
                double x = (double)a[i + l];
                l0[l] += x * (double)b0[i + l];
                l1[l] += x * (double)b1[i + l];
                l2[l] += x * (double)b2[i + l];
                l3[l] += x * (double)b3[i + l];
            }
        for (l = 0; i < n; i++, l++) {
            double x = (double)a[i];
            l0[l] += x * (double)b0[i];
            l1[l] += x * (double)b1[i];
            l2[l] += x * (double)b2[i];
            l3[l] += x * (double)b3[i];
        }
        out[0] = out[1] = out[2] = out[3] = 0;
        for (l = 0; l < 16; l++) {
            out[0] += l0[l]; out[1] += l1[l]; out[2] += l2[l]; out[3] += l3[l];
        }
    }
    static inline float unreid_bf16(unsigned short bits) {
        union { unsigned int u; float f; } word;
        word.u = (unsigned int)bits << 16;
        return word.f;
    }
    """
    double unreid_dot(const float *a, const float *b, Py_ssize_t n) noexcept nogil
    void unreid_dot4(const float *a, const float *b0, const float *b1, const float *b2,
                     const float *b3, Py_ssize_t n, double *out) noexcept nogil
    float unreid_bf16(unsigned short bits) noexcept nogil

ctypedef unsigned short half

ctypedef fused quantized:
    int
    float
    half

cdef enum:
    STEP = 16

cdef struct Lists:
    int *index
    float *value
    int *count
    int *room
    float *threshold
    float *slack
    int capacity
    int wanted
    int precision


cdef inline float _number(quantized bits) noexcept nogil:
    if quantized is half:
        return unreid_bf16(bits)
    else:
        return <float> bits


cdef float _largest(float *values, int n, int rank) noexcept nogil:
    """Return the ``rank``-th largest of n values (rank from 1); the values are reordered."""
    cdef int low = 0, high = n - 1, left, right, target = rank - 1
    cdef float pivot, swap
    while low < high:
        pivot = values[(low + high) // 2]
        left = low
        right = high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                swap = values[left]
                values[left] = values[right]
                values[right] = swap
                left += 1
                right -= 1
        if target <= right:
            high = right
        elif target >= left:
            low = left
        else:
            break
    return values[target]


cdef inline double _rounded(double value, int precision) noexcept nogil:
    """Return half a unit in the last place of ``value`` at ``precision`` bits; 0 means exact."""
    cdef int exponent = 0
    if precision == 0:
        return 0.0
    frexp(fabs(value), &exponent)
    return ldexp(1.0, exponent - precision - 1)


cdef void _prune(Lists *lists, Py_ssize_t row) noexcept nogil:
    """Update the threshold of a row from its list, and remove the entries below it."""
    cdef int n = lists.count[row], kept = 0, c
    cdef int *index = lists.index + row * lists.capacity
    cdef float *value = lists.value + row * lists.capacity
    cdef float *scratch
    cdef double best, reach
    if n <= lists.wanted:
        return
    scratch = <float *> malloc(n * sizeof(float))
    if scratch == NULL:
        return
    for c in range(n):
        scratch[c] = value[c]
    best = _largest(scratch, n, lists.wanted)
    free(scratch)
    # Entries near the threshold are smaller than |best| + 2 slack in magnitude. This bounds their
    # rounding error.
    reach = lists.slack[row] + 2.0 * _rounded(fabs(best) + 2.0 * lists.slack[row],
                                              lists.precision)
    lists.threshold[row] = <float> (best - reach - 1e-6)
    for c in range(n):
        if value[c] >= lists.threshold[row]:
            value[kept] = value[c]
            index[kept] = index[c]
            kept += 1
    lists.count[row] = kept
    # Lists are pruned before they are full, because the higher threshold rejects more entries: this
    # saves more time than the selection takes.
    lists.room[row] = min(lists.capacity, kept + lists.wanted // 2 + 16)


cdef void _push(Lists *lists, Py_ssize_t row, int column, float value) noexcept nogil:
    cdef int n = lists.count[row]
    if n >= lists.room[row]:
        _prune(lists, row)
        n = lists.count[row]
        if n == lists.capacity:  # too many near-ties: the caller searches the row again
            lists.count[row] = -1
            lists.threshold[row] = INFINITY
            return
        if value < lists.threshold[row]:
            return
    lists.index[row * lists.capacity + n] = column
    lists.value[row * lists.capacity + n] = value
    lists.count[row] = n + 1


cdef void _offer_row(const quantized *block, Py_ssize_t width, Py_ssize_t row, Py_ssize_t column0,
                     const float *scale, float sign, Lists *lists) noexcept nogil:
    """Add the columns of one row of a block to the list of that row, if above its threshold."""
    cdef Py_ssize_t j = 0, l, stop
    cdef float own = sign * scale[row], limit
    cdef int hit
    while j < width:
        stop = min(j + STEP, width)
        hit = 0
        limit = lists.threshold[row]
        if stop - j == STEP:
            for l in range(STEP):
                hit |= own * scale[column0 + j + l] * _number(block[j + l]) >= limit
        else:
            hit = 1
        if hit:
            for l in range(j, stop):
                if (own * scale[column0 + l] * _number(block[l]) >= lists.threshold[row]
                        and column0 + l != row):
                    _push(lists, row, <int> (column0 + l),
                          own * scale[column0 + l] * _number(block[l]))
        j = stop


cdef void _offer_columns(const quantized *block, Py_ssize_t stride, Py_ssize_t height,
                         Py_ssize_t first, Py_ssize_t last, Py_ssize_t row0, Py_ssize_t column0,
                         const float *scale, float sign, Lists *lists) noexcept nogil:
    """Add the rows of a block to the lists of its columns first..last-1, if above the threshold."""
    cdef Py_ssize_t i, j, l, stop
    cdef const quantized *line
    cdef const float *limit = lists.threshold + column0
    cdef const float *other = scale + column0
    cdef float own
    cdef int hit
    for i in range(height):
        line = block + i * stride
        own = sign * scale[row0 + i]
        j = first
        while j < last:
            stop = min(j + STEP, last)
            hit = 0
            if stop - j == STEP:
                for l in range(STEP):
                    hit |= own * other[j + l] * _number(line[j + l]) >= limit[j + l]
            else:
                hit = 1
            if hit:
                for l in range(j, stop):
                    if own * other[l] * _number(line[l]) >= limit[l]:
                        _push(lists, column0 + l, <int> (row0 + i),
                              own * other[l] * _number(line[l]))
            j = stop


def offer(quantized[:, ::1] block, Py_ssize_t row0, Py_ssize_t column0, float[::1] scale, float sign,
          int[:, ::1] index, float[:, ::1] value, int[::1] count, int[::1] room,
          float[::1] threshold, float[::1] slack, int wanted, int precision, int threads):
    """Add the entries of a block of quantized products to the lists of its rows and columns.

    Args:
        block: (B, B') products of rows row0.. with rows column0..; int32, float32, or the bits
            of bfloat16 as uint16. A block off the diagonal is also used for its transpose.
        row0, column0: Image of the first row and of the first column of the block.
        scale: (N,) float32; the quantized value is ``sign * scale[i] * scale[j] * block``.
        sign: 1, or -1 to search the smallest similarities.
        index, value: (N, M) the lists.
        count: (N,) their lengths; -1 if a list overflowed.
        room: (N,) lengths at which the lists are pruned next; > wanted and <= M at first.
        threshold: (N,) smallest value to keep.
        slack: (N,) twice the error bound of a value, without the rounding of ``block``.
        wanted: Number of best entries, the image itself not counted.
        precision: Significant bits of the format to which ``block`` was rounded; 0 if exact.
        threads: OpenMP threads; the lists do not depend on it.
    """
    cdef Lists lists
    cdef Py_ssize_t i, s, height = block.shape[0], width = block.shape[1]
    cdef Py_ssize_t stripes = (width + 63) // 64
    if height == 0 or width == 0 or wanted == 0:
        return
    lists.index, lists.value = &index[0, 0], &value[0, 0]
    lists.count, lists.room = &count[0], &room[0]
    lists.threshold, lists.slack = &threshold[0], &slack[0]
    lists.capacity, lists.wanted, lists.precision = <int> index.shape[1], wanted, precision
    for i in prange(height, nogil=True, num_threads=threads, schedule="static"):
        _offer_row(&block[i, 0], width, row0 + i, column0, &scale[0], sign, &lists)
    if row0 == column0:
        return
    for s in prange(stripes, nogil=True, num_threads=threads, schedule="static"):
        _offer_columns(&block[0, 0], width, height, 64 * s, min(64 * s + 64, width), row0,
                       column0, &scale[0], sign, &lists)


cdef int _finish_row(const float *features, Py_ssize_t channels, Py_ssize_t row, float sign,
                     Lists *lists, int *out_index, float *out_value) noexcept nogil:
    """Compute the exact similarities of a list and sort the best; return 0 for an invalid list."""
    cdef int n, c, p, l, filled = 0
    cdef int four[4]
    cdef double products[4]
    cdef int *index = lists.index + row * lists.capacity
    cdef float *value = lists.value + row * lists.capacity
    cdef float exact
    if lists.count[row] < 0:
        return 0
    _prune(lists, row)
    n = lists.count[row]
    if n < lists.wanted:
        return 0
    for c in range(n):
        if c % 4 == 0:
            for l in range(4):
                four[l] = index[min(c + l, n - 1)]
            unreid_dot4(features + row * channels, features + four[0] * channels,
                        features + four[1] * channels, features + four[2] * channels,
                        features + four[3] * channels, channels, products)
        exact = <float> (sign * products[c % 4])
        if fabs(exact - value[c]) > (0.5 * lists.slack[row] + 1e-6
                                     + 2.0 * _rounded(exact, lists.precision)):
            return 0
        if filled == lists.wanted and (exact < out_value[filled - 1] or (
                exact == out_value[filled - 1] and index[c] > out_index[filled - 1])):
            continue
        p = filled if filled < lists.wanted else filled - 1
        while p > 0 and (exact > out_value[p - 1] or (
                exact == out_value[p - 1] and index[c] < out_index[p - 1])):
            out_value[p] = out_value[p - 1]
            out_index[p] = out_index[p - 1]
            p -= 1
        out_value[p] = exact
        out_index[p] = index[c]
        if filled < lists.wanted:
            filled += 1
    return 1


def finish(const float[:, ::1] features, float sign, int[:, ::1] index, float[:, ::1] value,
           int[::1] count, int[::1] room, float[::1] threshold, float[::1] slack, int wanted,
           int precision, int threads):
    """Return the ``wanted`` best entries of each list by exact value.

    Returns:
        Indices (N, wanted) int32, in descending order of value, equal values in ascending order of
        index; ``sign`` times the similarities (N, wanted) float32; and valid rows (N,) int32. A row
        is 0 if its list overflowed or a quantized value exceeded its bound. It must then be
        searched again.
    """
    cdef Py_ssize_t i, num = features.shape[0], channels = features.shape[1]
    cdef Lists lists
    found = np.zeros((num, wanted), dtype=np.int32)
    scores = np.zeros((num, wanted), dtype=np.float32)
    trusted = np.ones(num, dtype=np.int32)
    if wanted == 0 or num == 0:
        return found, scores, trusted
    cdef int[:, ::1] out_index = found
    cdef float[:, ::1] out_value = scores
    cdef int[::1] good = trusted
    lists.index, lists.value = &index[0, 0], &value[0, 0]
    lists.count, lists.room = &count[0], &room[0]
    lists.threshold, lists.slack = &threshold[0], &slack[0]
    lists.capacity, lists.wanted, lists.precision = <int> index.shape[1], wanted, precision
    for i in prange(num, nogil=True, num_threads=threads, schedule="dynamic", chunksize=64):
        good[i] = _finish_row(&features[0, 0], channels, i, sign, &lists, &out_index[i, 0],
                              &out_value[i, 0])
    return found, scores, trusted


def pair_products(const float[:, ::1] left, const float[:, ::1] right, rows, columns,
                  int threads=1):
    """Return the inner products of ``left[rows[p]]`` and ``right[columns[p]]``, summed in double.

    Args:
        left, right: (N, D), (N', D) float32.
        rows, columns: (P,) integers.
        threads: OpenMP threads, >= 1; the result does not depend on it.

    Returns:
        (P,) float32.
    """
    cdef const long long[::1] row = np.ascontiguousarray(rows, dtype=np.int64)
    cdef const long long[::1] column = np.ascontiguousarray(columns, dtype=np.int64)
    cdef Py_ssize_t p, pairs = row.shape[0], channels = left.shape[1]
    products = np.empty(pairs, dtype=np.float32)
    cdef float[::1] out = products
    if pairs == 0:
        return products
    for p in prange(pairs, nogil=True, num_threads=threads, schedule="static"):
        out[p] = <float> unreid_dot(&left[row[p], 0], &right[column[p], 0], channels)
    return products
