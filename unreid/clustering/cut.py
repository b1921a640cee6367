"""Select the number of clusters of a merge tree without ground truth, by the silhouette.

Notation: N images, C clusters, D channels.
"""

from __future__ import annotations

import numpy as np

from unreid.checks import check_integer, check_number
from unreid.clustering.bottom_up import cut_tree
from unreid.clustering.silhouette import sphere_silhouette


def cut_by_silhouette(
    features: np.ndarray,
    merges: np.ndarray,
    *,
    smallest: float = 3.0,
    largest: float = 40.0,
    levels: int = 10,
) -> tuple[np.ndarray, float]:
    """Return the labels of the cut of a merge tree with the best silhouette.

    The selected number of clusters is usually too large: on the features of our tests it was three
    to four times the number of identities. The cost is ``levels`` products (N, D) x (D, C).

    Args:
        features: (N, D) float32, unit rows; the features that were merged.
        merges: (M, 2) of :func:`unreid.clustering.bottom_up.merge_tree` from singletons.
        smallest: Smallest mean number of images per cluster in the search.
        largest: Largest mean number of images per cluster in the search.
        levels: Numbers of clusters tried, in geometric progression.

    Returns:
        (N,) int64 labels, and their :func:`sphere_silhouette`.
    """
    check_number("smallest", smallest, 1)
    check_number("largest", largest, smallest)
    check_integer("levels", levels, 1)
    num_images = len(features)
    counts = np.unique(
        np.clip(np.geomspace(num_images / largest, num_images / smallest, levels), 2, None)
        .round()
        .astype(int)
    )
    best: tuple[np.ndarray, float] | None = None
    for count in counts:
        num_merges = min(max(num_images - int(count), 0), len(merges))
        labels = cut_tree(merges, num_merges, num_images)
        score = sphere_silhouette(features, labels)
        if best is None or score > best[1]:
            best = labels, score
    assert best is not None
    return best
