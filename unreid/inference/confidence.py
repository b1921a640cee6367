"""Confidence of a pseudo identity: the silhouette against centroids, scaled to 0..1.

[0] Rousseeuw, Silhouettes: a graphical aid, J. Comput. Appl. Math. 20, 1987.
[1] Hruschka, de Castro, Campello, Evolutionary algorithms for clustering, ICDM 2004
    (silhouettes against centroids).

Notation: N images, C clusters, D channels.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_features, check_integer
from unreid.clustering.partition import centroids, check_labels

#: Smaller distances are float32 rounding errors.
_ROUNDING = 1e-6


def confidence(features: np.ndarray, labels: np.ndarray, *, block_size: int = 2048) -> np.ndarray:
    """Return (1 + s) / 2 of the silhouette s = (b - a) / max(a, b) [1] of each image.

    a is the distance 1 - cos to the mean of the image's cluster without the image itself. b is the
    distance to the nearest mean of another cluster. The confidence is 1 at the centre of a distant
    cluster, 0.5 at equal distance to another cluster, and lower nearer to the other. The mean of s
    is :func:`unreid.clustering.silhouette.sphere_silhouette`.

    s is 0 [0] (confidence 0.5) for a cluster of one image, for a single cluster, and for an image
    that equals both means.

    Args:
        features: (N, D) float32, unit rows.
        labels: (N,) integers; -1 is noise, else 0..C-1, each used.
        block_size: Images per block, >= 1; no (N, N) matrix is computed.

    Returns:
        (N,) float32 in 0..1; 0 for noise.
    """
    check_features("features", features)
    labels = check_labels("labels", labels, len(features))
    block_size = check_integer("block_size", block_size, 1)
    result = np.zeros(len(labels), dtype=np.float32)
    kept = np.flatnonzero(labels >= 0)
    if not kept.size:
        return result
    result[kept] = 0.5
    means = centroids(features, labels)
    if len(means) < 2:
        return result
    sums = np.zeros(means.shape, dtype=np.float64)
    np.add.at(sums, labels[kept], features[kept])
    kept = kept[np.bincount(labels[kept])[labels[kept]] > 1]
    for start in range(0, len(kept), block_size):
        rows = kept[start : start + block_size]
        block, own = features[rows], labels[rows]
        cosines = block @ means.T
        cosines[np.arange(len(own)), own] = -np.inf
        b = 1.0 - cosines.max(axis=1).astype(np.float64)
        others = sums[own] - block
        lengths = np.linalg.norm(others, axis=1)
        a = 1.0 - np.einsum("ij,ij->i", block, others) / np.maximum(lengths, 1e-12)
        a, b = (np.where(d < _ROUNDING, 0.0, d) for d in (a, b))
        larger = np.maximum(a, b)
        s = np.where(larger > 0, (b - a) / np.where(larger > 0, larger, 1.0), 0.0)
        result[rows] = (1.0 + s) / 2.0
    return result
