# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Colour jitter of a batch: brightness, contrast, saturation and hue, each image in its own order.

Notation: B images, P pixels of each.
"""

from libc.math cimport floorf

import numpy as np

# Without this option gcc compiles ``a if x else b`` of floats to a branch, because floating-point
# traps might be enabled. The loop is then not vectorised, and hue takes four times as long.
cdef extern from *:
    """
    #if defined(__GNUC__) && !defined(__clang__)
    #pragma GCC optimize("no-trapping-math")
    #endif
    """


cdef inline float _bounded(float value) noexcept nogil:
    value = value if value > 0 else 0
    return value if value < 255 else 255


cdef inline float _wave(float k) noexcept nogil:
    """Return clip(min(k, 4 - k), 0, 1) with k modulo 6, the factor of chroma in HSV to RGB.

    A channel is value - chroma * factor. ``k`` is the hue in sixths of a turn, plus 5 for red, 3
    for green and 1 for blue.
    """
    k = k - 6 * floorf(k * <float>(1.0 / 6.0))
    cdef float rest = 4 - k
    k = k if k < rest else rest
    k = k if k > 0 else 0
    return k if k < 1 else 1


cdef void _blend_plain(float *r, float *g, float *b, float factor, float other,
                       Py_ssize_t num) noexcept nogil:
    """Blend with a constant grey value: 0 for brightness, the mean of the image for contrast."""
    cdef Py_ssize_t p
    cdef float rest = (1 - factor) * other
    for p in range(num):
        r[p] = _bounded(r[p] * factor + rest)
        g[p] = _bounded(g[p] * factor + rest)
        b[p] = _bounded(b[p] * factor + rest)


cdef void _blend_grey(float *r, float *g, float *b, float factor, Py_ssize_t num) noexcept nogil:
    """Blend with the grey value of each pixel, which changes the saturation."""
    cdef Py_ssize_t p
    cdef float grey
    for p in range(num):
        grey = (1 - factor) * (<float>0.299 * r[p] + <float>0.587 * g[p] + <float>0.114 * b[p])
        r[p] = _bounded(r[p] * factor + grey)
        g[p] = _bounded(g[p] * factor + grey)
        b[p] = _bounded(b[p] * factor + grey)


cdef void _turn_hue(float *r, float *g, float *b, float turns, Py_ssize_t num) noexcept nogil:
    """Shift the hue; value and saturation do not change."""
    cdef Py_ssize_t p
    cdef float high, low, chroma, inverse, sixths, of_red, of_green, red, green, blue
    cdef float shift = 6 * turns
    for p in range(num):
        red, green, blue = r[p], g[p], b[p]
        high = red if red > green else green
        high = high if high > blue else blue
        low = red if red < green else green
        low = low if low < blue else blue
        chroma = high - low
        inverse = 1 / (chroma if chroma > <float>1e-6 else <float>1e-6)
        # All three are computed before one is selected: a branch would prevent vectorisation.
        of_red = (green - blue) * inverse
        of_green = 2 + (blue - red) * inverse
        sixths = 4 + (red - green) * inverse
        sixths = of_green if high == green else sixths
        sixths = (of_red if high == red else sixths) + shift
        r[p] = high - chroma * _wave(5 + sixths)
        g[p] = high - chroma * _wave(3 + sixths)
        b[p] = high - chroma * _wave(1 + sixths)


cdef float _mean_grey(const float *planes, Py_ssize_t num) noexcept nogil:
    cdef Py_ssize_t p
    cdef const float *r = planes
    cdef const float *g = planes + num
    cdef const float *b = planes + 2 * num
    cdef double total = 0
    for p in range(num):
        total += <float>0.299 * r[p] + <float>0.587 * g[p] + <float>0.114 * b[p]
    return <float>(total / num)


cdef void _apply(float *planes, Py_ssize_t num, const long long *order, const float *factors,
                 Py_ssize_t first, Py_ssize_t last, float mean) noexcept nogil:
    """Apply steps ``first`` to ``last`` block by block, so that a block stays in cache."""
    cdef Py_ssize_t start, count, step
    cdef float *r
    cdef float *g
    cdef float *b
    for start in range(0, num, 512):
        count = 512 if num - start > 512 else num - start
        r, g, b = planes + start, planes + num + start, planes + 2 * num + start
        for step in range(first, last):
            if order[step] == 0:
                _blend_plain(r, g, b, factors[0], 0, count)
            elif order[step] == 1:
                _blend_plain(r, g, b, factors[1], mean, count)
            elif order[step] == 2:
                _blend_grey(r, g, b, factors[2], count)
            elif order[step] == 3:
                _turn_hue(r, g, b, factors[3], count)


cdef void _one(const unsigned char *pixels, unsigned char *out, float *planes, Py_ssize_t num,
               const long long *order, const float *factors) noexcept nogil:
    cdef Py_ssize_t p, step, contrast = 4
    cdef float mean = 0
    for p in range(num):
        planes[p] = pixels[3 * p]
        planes[num + p] = pixels[3 * p + 1]
        planes[2 * num + p] = pixels[3 * p + 2]
    for step in range(4):
        if order[step] == 1:
            contrast = step
    _apply(planes, num, order, factors, 0, contrast, 0)
    if contrast < 4:  # contrast needs the mean of the image after the earlier steps
        mean = _mean_grey(planes, num)
        _apply(planes, num, order, factors, contrast, 4, mean)
    for p in range(num):
        out[3 * p] = <unsigned char>(planes[p] + <float>0.5)
        out[3 * p + 1] = <unsigned char>(planes[num + p] + <float>0.5)
        out[3 * p + 2] = <unsigned char>(planes[2 * num + p] + <float>0.5)


def color_jitter(const unsigned char[:, :, ::1] pixels, const long long[:, ::1] orders,
                 const float[:, ::1] factors):
    """Return the images after colour jitter, in float32 with one rounding at the end.

    Args:
        pixels: (B, P, 3) uint8 RGB.
        orders: (B, 4) int64, steps in order of application: 0 brightness, 1 contrast,
            2 saturation, 3 hue, each at most once; -1 is no step.
        factors: (B, 4) float32 factors of brightness, contrast and saturation (1: identity), and
            the hue shift in turns (0: identity).

    Returns:
        (B, P, 3) uint8.
    """
    cdef Py_ssize_t i, images = pixels.shape[0], num = pixels.shape[1]
    changed = np.empty((images, num, 3), dtype=np.uint8)
    if images == 0 or num == 0:
        return changed
    cdef unsigned char[:, :, ::1] out = changed
    cdef float[::1] planes = np.empty(3 * num, dtype=np.float32)
    with nogil:
        for i in range(images):
            _one(&pixels[i, 0, 0], &out[i, 0, 0], &planes[0], num, &orders[i, 0], &factors[i, 0])
    return changed
