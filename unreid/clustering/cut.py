"""Unsupervised choice of the level of a merge tree by the silhouette.

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
    """Return the labels at the level of the tree with the best silhouette.

    The selected level has too many clusters rather than too few: three to four times the number of
    people on the features it was tested on. Cost: ``levels`` products (N, D) x (D, C).

    Args:
        features: (N, D) float32, unit rows, of the tree.
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
