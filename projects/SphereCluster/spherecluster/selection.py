"""Selection scores of a round without ground truth: silhouette or stability of its clusters.

Notation: N images, C clusters, D channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import adjusted_rand_score

CRITERIA = ("silhouette", "stability", "none")

#: Score of a partition into single images.
SINGLETON_SCORE = -1.0


def stability(
    features: np.ndarray,
    partition: np.ndarray,
    merge: Callable[[np.ndarray, int], np.ndarray],
) -> float:
    """Return the adjusted Rand index of a partition and its repetition with new features.

    The model was trained on ``partition``. Its features are clustered again into the same number of
    clusters; a high index means that the partition is stable.

    Args:
        features: (N, D) features of the trained model.
        partition: (N,) int64 in 0..C-1, every image in a cluster.
        merge: ``merge(features, M)`` returns (N,) labels after M merges of single images.

    Returns:
        A score in -0.5..1, larger is better; -1 for single images, which are always stable.
    """
    num_merges = len(partition) - int(partition.max()) - 1
    if num_merges == 0:
        return SINGLETON_SCORE
    return float(adjusted_rand_score(partition, merge(features, num_merges)))
