"""Two-dimensional embedding of features for the scatter plots.

[0] van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 2008.

Notation: n images, D channels.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from unreid.checks import check_choice, check_integer

METHODS = ("tsne", "pca")
#: Minimum number of points for t-SNE; PCA is used for fewer.
_FEWEST = 10


def project_2d(features: np.ndarray, method: str = "tsne", seed: int = 0) -> np.ndarray:
    """Return two-dimensional coordinates in -1..1 of the features.

    Args:
        features: (n, D) float32.
        method: ``"tsne"`` [0] on the first 50 principal components, or ``"pca"``. PCA is also
            used for fewer than 10 images. Identical features give zeros.
        seed: Seed of t-SNE.

    Returns:
        (n, 2) float64.

    Raises:
        ValueError: The method is unknown, or the seed is negative.
    """
    check_choice("method", method, METHODS)
    check_integer("seed", seed, 0)
    n = len(features)
    if n < 2 or np.ptp(features, axis=0).max() < 1e-6:
        return np.zeros((n, 2))
    parts = min(50, n, features.shape[1])
    points = PCA(
        parts, svd_solver="full" if parts < 50 else "randomized", random_state=seed
    ).fit_transform(features.astype(np.float64))
    if method == "tsne" and n >= _FEWEST:
        start = 1e-4 * points[:, :2] / points[:, 0].std()
        if parts < 2:
            start = np.hstack([start, np.zeros((n, 1))])
        points = TSNE(
            perplexity=min(30.0, (n - 1) / 3), init=start, random_state=seed, max_iter=500
        ).fit_transform(points)
    if points.shape[1] < 2:
        points = np.hstack([points, np.zeros((n, 1))])
    points = points[:, :2] - points[:, :2].mean(axis=0)
    return points / np.abs(points).max()
