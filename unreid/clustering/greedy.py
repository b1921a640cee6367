"""Merging the two nearest clusters, one merge at a time: exact for every linkage.

Every cluster caches the distance to its nearest neighbour, or a lower bound of it. A bound is
replaced by the exact distance when it is the smallest value [0, the "generic" algorithm]. Each
merge computes one row of distances. The cost is O(C^2 D) in total, and memory is linear in C.

[0] Mullner: Modern hierarchical, agglomerative clustering algorithms, 2011,
    https://arxiv.org/abs/1109.2378

Notation: N images, D channels, C clusters.
"""

from __future__ import annotations

import numpy as np

from unreid.clustering.linkage import Clusters, Rule
from unreid.kernels import kernel, merging_reference, num_threads

BLOCK_ROWS = 512


class Rows:
    """Distances from one cluster to others, with the same rounding for every caller.

    Args:
        clusters: The clusters; the caller updates them after each merge.
        rule: Linkage and regulariser.
        features: (N, D) features of the images; used for ``minimum`` only.
        owner: (N,) slot of the cluster of each image, -1 for none; used for ``minimum`` only. The
            caller updates it after each merge.
    """

    def __init__(
        self, clusters: Clusters, rule: Rule, features: np.ndarray, owner: np.ndarray
    ) -> None:
        self.clusters, self.rule, self.owner = clusters, rule, owner
        self.images = features.astype(np.float64) if rule.linkage == "minimum" else None
        self._squared = (kernel("merging") or merging_reference).squared_distances

    def squared(self, slot: int, others: np.ndarray) -> np.ndarray:
        """Return e = ||m_slot - m_other||^2, (len(others),) float64."""
        means = self.clusters.means
        return self._squared(means, means[slot], others, num_threads())

    def distances(self, slot: int, others: np.ndarray) -> np.ndarray:
        """Return D(slot, other), (len(others),) float64."""
        nearest = None
        if self.images is not None:
            nearest = np.full(len(self.clusters), np.inf)
            all_images = np.flatnonzero(self.owner >= 0)
            for image in np.flatnonzero(self.owner == slot):
                apart = self._squared(self.images, self.images[image], all_images, num_threads())
                np.minimum.at(nearest, self.owner[all_images], apart)
            nearest = nearest[others]
        squared = self.squared(slot, others)
        return self.rule.distance(squared, self.clusters, np.array(slot), others, nearest)


def lower_bounds(clusters: Clusters, rule: Rule) -> np.ndarray:
    """Return (C,) lower bounds of the distance of each cluster to its nearest neighbour.

    The bound is computed from float32 products in blocks, minus their error bound. It is minus
    infinity for ``minimum``, which is not a function of the means.
    """
    count, channels = clusters.means.shape
    if rule.linkage == "minimum":
        return np.full(count, -np.inf)
    means = clusters.means.astype(np.float32)
    lengths = clusters.lengths**2 * (1 - (channels + 32) * 2.0**-24)
    bounds = np.empty(count)
    all_slots = np.arange(count)
    for start in range(0, count, BLOCK_ROWS):
        rows = all_slots[start : start + BLOCK_ROWS]
        squared = lengths[rows, None] + lengths[None] - 2 * (means[rows] @ means.T)
        distance = rule.distance(np.maximum(squared, 0), clusters, rows[:, None], all_slots[None])
        distance[np.arange(len(rows)), rows] = np.inf
        bounds[rows] = distance.min(axis=1)
    return bounds


def _first(values: np.ndarray, slot: int, others: np.ndarray) -> int:
    """Return the position of the smallest value; ties by the smaller, then the larger id."""
    ties = np.flatnonzero(values == values.min())
    if len(ties) == 1:
        return int(ties[0])
    low, high = np.minimum(others[ties], slot), np.maximum(others[ties], slot)
    return int(ties[np.lexsort((high, low))[0]])


def greedy_merges(
    clusters: Clusters, rule: Rule, num_merges: int, features: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the nearest pair ``num_merges`` times.

    Ties are resolved by the smaller, then the larger id. A merged cluster keeps the larger id.

    Returns:
        (M, 2) int64 slots (smaller, larger) and (M,) float64 distances, in order of merging.
        ``clusters`` is changed in place.
    """
    rows = Rows(clusters, rule, features, owner.copy())
    count = len(clusters)
    active = np.arange(count)
    near, nearest = lower_bounds(clusters, rule), np.full(count, -1)
    exact = np.zeros(count, bool)
    pairs, heights = np.empty((num_merges, 2), np.int64), np.empty(num_merges)
    for step in range(num_merges):
        while True:
            values = near[active]
            ties = active[values == values.min()]
            open_ties = ties[~exact[ties]]
            if not len(open_ties):
                break
            # The smallest bound is replaced by the exact distance; other bounds are kept.
            for slot in open_ties.tolist():
                others = active[active != slot]
                distances = rows.distances(slot, others)
                at = _first(distances, slot, others)
                near[slot], nearest[slot], exact[slot] = distances[at], others[at], True
        low, high = np.minimum(ties, nearest[ties]), np.maximum(ties, nearest[ties])
        best = np.lexsort((high, low))[0]
        a, b = int(low[best]), int(high[best])
        pairs[step], heights[step] = (a, b), near[ties[0]]
        clusters.merge(a, b, float(rows.squared(a, np.array([b]))[0]))
        rows.owner[rows.owner == a] = b
        active = active[active != a]
        near[a] = np.inf
        if len(active) > 1:
            _update_caches(rows, active[active != b], b, a, near, nearest, exact)
    return pairs, heights


def _update_caches(
    rows: Rows, others: np.ndarray, union: int, gone: int,
    near: np.ndarray, nearest: np.ndarray, exact: np.ndarray,
) -> None:  # fmt: skip
    """Update the nearest neighbour of the new cluster and the caches of the others."""
    distances = rows.distances(union, others)
    at = _first(distances, union, others)
    near[union], nearest[union], exact[union] = distances[at], others[at], True
    # If the neighbour of a cluster merged, the old distance is a lower bound.
    exact[others[(nearest[others] == gone) | (nearest[others] == union)]] = False
    before, known = near[others], nearest[others]
    low, high = np.minimum(others, union), np.maximum(others, union)
    old_low, old_high = np.minimum(others, known), np.maximum(others, known)
    earlier = (low < old_low) | ((low == old_low) & (high < old_high))
    closer = (distances < before) | ((distances == before) & exact[others] & earlier)
    slots = others[closer]
    near[slots], nearest[slots], exact[slots] = distances[closer], union, True
