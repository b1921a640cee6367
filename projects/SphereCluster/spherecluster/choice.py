"""Which round is best, asked without labels: how compact its clusters are, or how stable.

Notation: N images, C clusters, D channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import adjusted_rand_score

CHOICES = ("silhouette", "stability", "none")

#: Where there is nothing to judge: single images only.
WORST = -1.0


def stability(
    features: np.ndarray,
    partition: np.ndarray,
    merge: Callable[[np.ndarray, int], np.ndarray],
) -> float:
    """Adjusted Rand index between a partition that was trained on and the one that the features
    which came of it give at the same number of clusters.

    Args:
        features: (N, D), those of now.
        partition: (N,) int64 in 0..C-1, every image in a cluster.
        merge: ``merge(features, M)``: (N,) labels after M merges of single images.

    Returns:
        In -0.5..1, larger is better; -1 for single images, which are always stable.
    """
    num_merges = len(partition) - int(partition.max()) - 1
    if num_merges == 0:
        return WORST
    return float(adjusted_rand_score(partition, merge(features, num_merges)))
