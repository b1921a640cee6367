"""Reference implementation of ``knn.pyx`` in numpy: same names, arguments and results.

Notation: N images, D channels, P pairs, K neighbours, M candidates.
"""

from __future__ import annotations

import numpy as np

#: Pairs scored together: bounds the gathered rows to about 50 MB at 2048 channels.
PAIRS_AT_ONCE = 1024
#: Partial sums of an inner product, added up from the first to the last.
LANES = 16


def pair_products(
    left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray, threads: int = 1
) -> np.ndarray:
    """Return the inner products of ``left[rows[p]]`` and ``right[columns[p]]``, summed in double.

    Args:
        left: (N, D) float32.
        right: (N', D) float32.
        rows: (P,) integer rows of ``left``.
        columns: (P,) integer rows of ``right``.
        threads: Not used.

    Returns:
        (P,) float32, bit-identical to the kernel: sixteen lanes in the same order.
    """
    products = np.empty(len(rows), dtype=np.float32)
    padding = ((0, 0), (0, -left.shape[1] % LANES))
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        product = left[rows[part]].astype(np.float64) * right[columns[part]]
        lanes = np.pad(product, padding).reshape(len(product), -1, LANES)
        products[part] = lanes.cumsum(axis=1)[:, -1].cumsum(axis=1)[:, -1]
    return products
