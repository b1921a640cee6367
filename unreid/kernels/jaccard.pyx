# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""k-reciprocal sets, query expansion and sparse Jaccard distances, computed row by row.

Each thread allocates a few arrays of N numbers; no dense (N, N) array is allocated. Minima are
summed as integers in units of 2^-30, so that the result does not depend on the order of summation
or the number of threads.

Notation: N images, K neighbours, E entries of a sparse matrix, T threads.
"""

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free, realloc

import numpy as np

ctypedef unsigned long long word
ctypedef unsigned int unit

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    static inline int unreid_lowest(unsigned long long bits) { return __builtin_ctzll(bits); }
    #else
    static inline int unreid_lowest(unsigned long long bits) {
        int place = 0;
        while (!(bits & 1)) { bits >>= 1; place++; }
        return place;
    }
    #endif
    """
    int unreid_lowest(unsigned long long bits) noexcept nogil

cdef double UNITS = 1073741824.0  # 2^30


cdef void _sort(int *values, Py_ssize_t n) noexcept nogil:
    """Sort ascending in place (Shell sort with Ciura's gaps)."""
    cdef int gaps[8]
    cdef Py_ssize_t g, i, j, gap
    cdef int value
    gaps[:] = [701, 301, 132, 57, 23, 10, 4, 1]
    for g in range(8):
        gap = gaps[g]
        for i in range(gap, n):
            value = values[i]
            j = i
            while j >= gap and values[j - gap] > value:
                values[j] = values[j - gap]
                j -= gap
            values[j] = value


cdef Py_ssize_t _mutual(const int *indices, Py_ssize_t stride, Py_ssize_t width, Py_ssize_t row,
                        int *out) noexcept nogil:
    """Write the k-reciprocal neighbours of a row, k = ``width``; return their number."""
    cdef Py_ssize_t c, l, n = 0
    cdef const int *theirs
    cdef int found
    for c in range(width):
        theirs = indices + <Py_ssize_t> indices[row * stride + c] * stride
        found = 0
        for l in range(width):
            found |= theirs[l] == <int> row
        if found:
            out[n] = indices[row * stride + c]
            n += 1
    return n


cdef Py_ssize_t _union(Py_ssize_t row, const int *full, const int *full_count, Py_ssize_t width,
                       const int *half, const int *half_count, Py_ssize_t half_width,
                       int *member, int *seen, int *out) noexcept nogil:
    """Write the expanded set of a row to ``out``, unless it is NULL; return the size of the set."""
    cdef Py_ssize_t c, l, n = 0, size
    cdef int candidate, stamp = <int> row + 1, shared
    cdef const int *theirs
    for c in range(full_count[row]):
        candidate = full[row * width + c]
        member[candidate] = stamp
        seen[candidate] = stamp
        if out != NULL:
            out[n] = candidate
        n += 1
    for c in range(full_count[row]):
        candidate = full[row * width + c]
        theirs = half + candidate * half_width
        size = half_count[candidate]
        shared = 0
        for l in range(size):
            shared += member[theirs[l]] == stamp
        if 3 * shared <= 2 * size:
            continue
        for l in range(size):
            if seen[theirs[l]] != stamp:
                seen[theirs[l]] = stamp
                if out != NULL:
                    out[n] = theirs[l]
                n += 1
    return n


def expand(const int[:, ::1] indices, Py_ssize_t width, Py_ssize_t half_width, int threads=1):
    """Return the expanded k-reciprocal set of each image.

    The set R(i, k) of image i is united with the half set R(j, k / 2) of each j in it, if more than
    two thirds of R(j, k / 2) are in R(i, k).

    Args:
        indices: (N, K) int32 neighbours, the image itself first.
        width, half_width: k of the set and of the half set, the image itself counted; clipped to K.
        threads: OpenMP threads; the result does not depend on it.

    Returns:
        indptr (N + 1,) int64 and sorted columns (E,) int32.
    """
    cdef Py_ssize_t num = indices.shape[0], stride = indices.shape[1], i
    width, half_width = min(width, stride), min(half_width, stride)
    cdef int[:, ::1] full = np.empty((num, width), dtype=np.int32)
    cdef int[:, ::1] half = np.empty((num, half_width), dtype=np.int32)
    cdef int[::1] full_count = np.empty(num, dtype=np.int32)
    cdef int[::1] half_count = np.empty(num, dtype=np.int32)
    for i in prange(num, nogil=True, num_threads=threads, schedule="static"):
        full_count[i] = <int> _mutual(&indices[0, 0], stride, width, i, &full[i, 0])
        half_count[i] = <int> _mutual(&indices[0, 0], stride, half_width, i, &half[i, 0])
    pointers = np.zeros(num + 1, dtype=np.int64)
    cdef long long[::1] indptr = pointers
    cdef int[:, ::1] member = np.zeros((threads, num), dtype=np.int32)
    cdef int[:, ::1] seen = np.zeros((threads, num), dtype=np.int32)
    for i in prange(num, nogil=True, num_threads=threads, schedule="static"):
        indptr[i + 1] = _union(i, &full[0, 0], &full_count[0], width, &half[0, 0], &half_count[0],
                               half_width, &member[threadid(), 0], &seen[threadid(), 0], NULL)
    np.cumsum(pointers, out=pointers)
    columns = np.empty(pointers[num], dtype=np.int32)
    cdef int[::1] out = columns
    member[:, :] = 0
    seen[:, :] = 0
    for i in prange(num, nogil=True, num_threads=threads, schedule="static"):
        _union(i, &full[0, 0], &full_count[0], width, &half[0, 0], &half_count[0], half_width,
               &member[threadid(), 0], &seen[threadid(), 0], &out[indptr[i]])
        _sort(&out[indptr[i]], indptr[i + 1] - indptr[i])
    return pointers, columns


cdef Py_ssize_t _gather(Py_ssize_t row, const long long *indptr, const int *columns,
                        const int *neighbours, Py_ssize_t k2, int *seen, int *out) noexcept nogil:
    """Write the union of the columns of a row's neighbours to ``out``, unless it is NULL.

    Returns the number of columns.
    """
    cdef Py_ssize_t e, l, n = 0
    cdef int stamp = <int> row + 1, who
    for l in range(k2):
        who = neighbours[row * k2 + l]
        for e in range(indptr[who], indptr[who + 1]):
            if seen[columns[e]] != stamp:
                seen[columns[e]] = stamp
                if out != NULL:
                    out[n] = columns[e]
                n += 1
    return n


cdef void _average(Py_ssize_t row, const long long *indptr, const int *columns,
                   const float *values, const int *neighbours, Py_ssize_t k2, double *total,
                   const int *wanted, Py_ssize_t n, float *out) noexcept nogil:
    """Compute the mean over the neighbours' rows at the sorted columns ``wanted``."""
    cdef Py_ssize_t e, l
    cdef int who
    for l in range(k2):
        who = neighbours[row * k2 + l]
        for e in range(indptr[who], indptr[who + 1]):
            total[columns[e]] += values[e]
    for e in range(n):
        out[e] = <float> (total[wanted[e]] / k2)
        total[wanted[e]] = 0.0


def mean_rows(const long long[::1] indptr, const int[::1] columns, const float[::1] values,
              const int[:, ::1] neighbours, int threads=1):
    """Replace each row of a sparse matrix by the mean over the rows of its neighbours.

    Args:
        indptr, columns, values: CSR (N, N) without empty rows, values float32.
        neighbours: (N, k2) int32.
        threads: OpenMP threads; the result does not depend on it.

    Returns:
        CSR with sorted columns: indptr (N + 1,) int64, columns int32, values float32.
    """
    cdef Py_ssize_t num = neighbours.shape[0], k2 = neighbours.shape[1], i
    pointers = np.zeros(num + 1, dtype=np.int64)
    cdef long long[::1] ends = pointers
    cdef int[:, ::1] seen = np.zeros((threads, num), dtype=np.int32)
    cdef double[:, ::1] total = np.zeros((threads, num))
    for i in prange(num, nogil=True, num_threads=threads, schedule="static"):
        ends[i + 1] = _gather(i, &indptr[0], &columns[0], &neighbours[0, 0], k2,
                              &seen[threadid(), 0], NULL)
    np.cumsum(pointers, out=pointers)
    new_columns = np.empty(pointers[num], dtype=np.int32)
    new_values = np.empty(pointers[num], dtype=np.float32)
    cdef int[::1] out = new_columns
    cdef float[::1] means = new_values
    seen[:, :] = 0
    for i in prange(num, nogil=True, num_threads=threads, schedule="static"):
        _gather(i, &indptr[0], &columns[0], &neighbours[0, 0], k2, &seen[threadid(), 0],
                &out[ends[i]])
        _sort(&out[ends[i]], ends[i + 1] - ends[i])
        _average(i, &indptr[0], &columns[0], &values[0], &neighbours[0, 0], k2,
                 &total[threadid(), 0], &out[ends[i]], ends[i + 1] - ends[i], &means[ends[i]])
    return pointers, new_columns, new_values


cdef struct Inverted:
    const long long *indptr
    const int *columns
    const unit *amounts
    const long long *starts
    const int *rows
    const unit *row_amounts
    Py_ssize_t num
    double limit

cdef struct Buffer:
    int *columns
    float *values
    Py_ssize_t size
    Py_ssize_t room
    int failed


cdef int _make_room(Buffer *buffer, Py_ssize_t wanted) noexcept nogil:
    """Grow a buffer by half or more if it is too small; return 0 if the allocation fails."""
    cdef Py_ssize_t room = max(buffer.size + wanted, buffer.room + buffer.room // 2)
    cdef int *columns
    cdef float *values
    if buffer.size + wanted <= buffer.room:
        return 1
    columns = <int *> realloc(buffer.columns, room * sizeof(int))
    if columns != NULL:
        buffer.columns = columns
    values = <float *> realloc(buffer.values, room * sizeof(float))
    if values != NULL:
        buffer.values = values
    if columns == NULL or values == NULL:
        buffer.failed = 1
        return 0
    buffer.room = room
    return 1


cdef inline Py_ssize_t _first_from(const int *rows, Py_ssize_t low, Py_ssize_t high,
                                   int least) noexcept nogil:
    """Return the first position in the sorted rows[low:high] with a value >= ``least``."""
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if rows[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


cdef Py_ssize_t _share(const Inverted *sets, Py_ssize_t row, int least, unit *shared,
                       int *touched) noexcept nogil:
    """Add to ``shared`` the sum of elementwise minima of a row and each row >= ``least``.

    Write the rows with a sum > 0 to ``touched`` and return their number.
    """
    cdef Py_ssize_t e, l, stop, n = 0
    cdef const int *rows = sets.rows
    cdef const unit *amounts = sets.row_amounts
    cdef unit mine, other, before
    cdef int column
    for e in range(sets.indptr[row], sets.indptr[row + 1]):
        mine = sets.amounts[e]
        column = sets.columns[e]
        stop = sets.starts[column + 1]
        for l in range(_first_from(rows, sets.starts[column], stop, least), stop):
            other = amounts[l]
            before = shared[rows[l]]
            touched[n] = rows[l]
            n += before == 0
            shared[rows[l]] = before + (mine if mine < other else other)
    return n


cdef Py_ssize_t _distances(const Inverted *sets, Py_ssize_t row, int least, unit *shared,
                           int *touched, word *bits, Buffer *buffer) noexcept nogil:
    """Append the distances of a row to columns >= ``least``, up to the limit.

    Returns the number of distances.
    """
    cdef Py_ssize_t l, w, kept, n = _share(sets, row, least, shared, touched)
    cdef int who
    cdef int *columns
    cdef float *values
    cdef word left
    cdef double sum_of_minima
    cdef float distance, limit = <float> sets.limit
    for l in range(n):
        bits[touched[l] >> 6] |= (<word> 1) << (touched[l] & 63)
    if not _make_room(buffer, n):
        return 0
    kept = buffer.size
    columns, values = buffer.columns, buffer.values
    for w in range(least >> 6, (sets.num + 63) // 64):
        left = bits[w]
        bits[w] = 0
        while left:
            who = <int> (64 * w) + unreid_lowest(left)
            left &= left - 1
            sum_of_minima = shared[who] / UNITS
            shared[who] = 0
            distance = <float> (1.0 - sum_of_minima / (2.0 - sum_of_minima))
            if who == row or distance < 0.0:
                distance = 0.0
            columns[kept] = who
            values[kept] = distance
            kept += distance < 1.0 and distance <= limit
    n = kept - buffer.size
    buffer.size = kept
    return n


cdef void _assemble(Py_ssize_t num_rows, bint mirror, Buffer *buffers, const int *owner,
                    const long long *offset, const long long *count, long long *place,
                    int *columns, float *values) noexcept nogil:
    """Copy the rows from the buffers; with ``mirror``, write each entry to its transpose too.

    Rows are copied in ascending order. The transposed entries of a row come from smaller rows, so
    they are complete and sorted before the row's own entries are appended.
    """
    cdef Py_ssize_t i, e
    cdef const int *theirs
    cdef const float *theirs_values
    cdef int j
    for i in range(num_rows):
        theirs = buffers[owner[i]].columns + offset[i]
        theirs_values = buffers[owner[i]].values + offset[i]
        for e in range(count[i]):
            j = theirs[e]
            columns[place[i]] = j
            values[place[i]] = theirs_values[e]
            place[i] += 1
            if mirror and j != i:
                columns[place[j]] = <int> i
                values[place[j]] = theirs_values[e]
                place[j] += 1


cdef void _count(Py_ssize_t num_rows, bint mirror, Buffer *buffers, const int *owner,
                 const long long *offset, const long long *count, long long *out) noexcept nogil:
    """Count the entries of each row of the result."""
    cdef Py_ssize_t i, e
    cdef const int *theirs
    for i in range(num_rows):
        theirs = buffers[owner[i]].columns + offset[i]
        out[i] += count[i]
        if mirror:
            for e in range(count[i]):
                out[theirs[e]] += theirs[e] != i


def _invert(const long long[::1] indptr, const int[::1] columns, const unit[::1] amounts):
    """Return the transpose: starts (N + 1,), rows (E,) sorted within a column, amounts (E,)."""
    cdef Py_ssize_t num = indptr.shape[0] - 1, i, e
    starts = np.zeros(num + 1, dtype=np.int64)
    np.cumsum(np.bincount(columns, minlength=num), out=starts[1:])
    rows_array = np.empty(columns.shape[0], dtype=np.int32)
    amounts_array = np.empty(columns.shape[0], dtype=np.uint32)
    cdef long long[::1] place = starts[:num].copy()
    cdef int[::1] rows = rows_array
    cdef unit[::1] row_amounts = amounts_array
    with nogil:
        for i in range(num):
            for e in range(indptr[i], indptr[i + 1]):
                rows[place[columns[e]]] = <int> i
                row_amounts[place[columns[e]]] = amounts[e]
                place[columns[e]] += 1
    return starts, rows_array, amounts_array


def jaccard_rows(const long long[::1] indptr, const int[::1] columns, const float[::1] values,
                 Py_ssize_t num_rows, Py_ssize_t first_column, double max_distance,
                 int threads=1):
    """Return the Jaccard distances 1 - s / (2 - s) of rows that each sum to 1.

    s is the sum of the elementwise minima of two rows.

    Args:
        indptr, columns, values: CSR (N, N) with sorted columns and without empty rows; values
            float32, > 0 and at most 1.
        num_rows: Number of rows to compute, starting at row 0.
        first_column: Smallest column of the result.
        max_distance: Largest distance of the result; distances of exactly 1 are never included.
        threads: OpenMP threads; the result does not depend on it.

    Returns:
        CSR of shape (num_rows, N) with sorted columns and 0 on the diagonal.
    """
    cdef Py_ssize_t num = indptr.shape[0] - 1, i, total
    cdef int t, me
    cdef bint mirror = num_rows == num and first_column == 0
    cdef Inverted sets
    scaled = np.maximum(np.rint(np.multiply(values, UNITS, dtype=np.float64)), 1.0)
    cdef unit[::1] amounts = scaled.astype(np.uint32)
    del scaled
    starts_array, rows_array, row_amounts_array = _invert(indptr, columns, amounts)
    cdef const long long[::1] starts = starts_array
    cdef const int[::1] rows = rows_array
    cdef const unit[::1] row_amounts = row_amounts_array
    sets.indptr, sets.columns, sets.amounts = &indptr[0], &columns[0], &amounts[0]
    sets.starts, sets.rows, sets.row_amounts = &starts[0], &rows[0], &row_amounts[0]
    sets.num, sets.limit = num, max_distance
    cdef long long[::1] count = np.zeros(num_rows, dtype=np.int64)
    cdef long long[::1] offset = np.zeros(num_rows, dtype=np.int64)
    cdef int[::1] owner = np.zeros(num_rows, dtype=np.int32)
    cdef unit[:, ::1] shared = np.zeros((threads, num), dtype=np.uint32)
    cdef int[:, ::1] touched = np.empty((threads, num + 1), dtype=np.int32)
    cdef word[:, ::1] bits = np.zeros((threads, num // 64 + 1), dtype=np.uint64)
    pointers = np.zeros(num_rows + 1, dtype=np.int64)
    cdef long long[::1] ends = pointers
    cdef long long[::1] place
    cdef int[::1] out_columns
    cdef float[::1] out_values
    cdef Buffer *buffers = <Buffer *> calloc(threads, sizeof(Buffer))
    if buffers == NULL:
        raise MemoryError()
    try:
        for i in prange(num_rows, nogil=True, num_threads=threads, schedule="dynamic",
                        chunksize=16):
            me = threadid()
            owner[i] = me
            offset[i] = buffers[me].size
            count[i] = _distances(&sets, i, <int> (i if mirror else first_column),
                                  &shared[me, 0], &touched[me, 0], &bits[me, 0], &buffers[me])
        for t in range(threads):
            if buffers[t].failed:
                raise MemoryError("no memory for the entries of the Jaccard distance")
        _count(num_rows, mirror, buffers, &owner[0], &offset[0], &count[0], &ends[1])
        np.cumsum(pointers, out=pointers)
        total = pointers[num_rows]
        columns_array = np.empty(total, dtype=np.int32)
        values_array = np.empty(total, dtype=np.float32)
        if total:
            place = pointers[:num_rows].copy()
            out_columns, out_values = columns_array, values_array
            with nogil:
                _assemble(num_rows, mirror, buffers, &owner[0], &offset[0], &count[0], &place[0],
                          &out_columns[0], &out_values[0])
        return pointers, columns_array, values_array
    finally:
        for t in range(threads):
            free(buffers[t].columns)
            free(buffers[t].values)
        free(buffers)
