"""The k nearest images of each image by Euclidean distance, for features of any length.

Notation: N images, D channels, K neighbours.
"""

from __future__ import annotations

import numpy as np
import torch

from unreid.checks import check_features, check_integer
from unreid.kernels import zero_copy

#: Entries of a block of float32 products.
MAX_ENTRIES = 2**24
#: Extra candidates of the float32 search, which are then ordered by float64 distances.
SPARE = 16


def centred(features: np.ndarray) -> np.ndarray:
    """Return features minus their mean row, (N, D) float32, which reduces rounding errors."""
    mean = features.mean(axis=0, dtype=np.float64)
    return np.ascontiguousarray(features - mean, dtype=np.float32)


def euclidean_knn(features: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest images of each image, itself first.

    Args:
        features: (N, D) float32, rows of any length; see :func:`centred`.
        k: Neighbours including the image itself, >= 1; clipped to N.

    Returns:
        (N, k) int32: self first, then ascending distance, ties by index.
    """
    check_features("features", features, unit=False)
    num = len(features)
    k = min(check_integer("k", k, 1), num)
    width = min(k + SPARE, num)
    rows = zero_copy(np.ascontiguousarray(features, dtype=np.float32))
    squares = rows.square().sum(dim=1)
    found = torch.empty((num, k), dtype=torch.int64)
    # The second limit bounds the (rows, width, D) float64 differences.
    at_once = max(1, min(MAX_ENTRIES // num, MAX_ENTRIES // (width * rows.shape[1])))
    for part in torch.arange(num).split(at_once):
        # ||x - y||^2 without ||x||^2, which is the same for all candidates y of a row.
        partial = squares - 2.0 * (rows[part] @ rows.T)
        partial.scatter_(1, part[:, None], -torch.inf)
        candidates = partial.topk(width, dim=1, largest=False).indices.sort(dim=1).values
        exact = (rows[part, None].double() - rows[candidates].double()).square().sum(dim=2)
        exact[candidates == part[:, None]] = -1.0
        order = exact.sort(dim=1, stable=True).indices[:, :k]
        found[part] = candidates.gather(1, order)
    return found.numpy().astype(np.int32)
