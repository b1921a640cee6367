"""Numpy twin of the kernels in ``knn.pyx``: the same names, arguments and results.

Letters: N images, D channels, P pairs, K neighbours, M candidates.
"""

from __future__ import annotations

import numpy as np

#: Pairs scored together: bounds the gathered rows to about 64 MB at 2048 channels.
PAIRS_AT_ONCE = 2048


def pair_products(
    left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Inner products of ``left[rows[p]]`` and ``right[columns[p]]``, summed in double.

    Args:
        left, right: (N, D), (N', D) float32.
        rows, columns: (P,) integers.

    Returns:
        (P,) float32.
    """
    products = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        products[part] = np.einsum(
            "pd,pd->p", left[rows[part]], right[columns[part]], dtype=np.float64
        )
    return products
