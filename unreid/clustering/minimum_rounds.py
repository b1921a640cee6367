"""Exact merging under the ``minimum`` linkage from image neighbours, without an N x N matrix.

Without a regulariser the tree is a minimum spanning tree of the images [0]. With SSE or size
the rule is still reducible (``Rule.reducible``), so mutual nearest clusters merge in rounds. Each
image stores its T nearest images of other clusters and a lower bound for the rest. The bound
remains valid, because penalties only increase when clusters merge.

[0] Gower, Ross: Minimum spanning trees and single linkage cluster analysis, 1969

Notation: P images in clusters, D channels, C clusters, T entries of a list, M merges.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unreid.clustering.linkage import Clusters, Rule
from unreid.clustering.passes import nearest_edges
from unreid.kernels import kernel, merging_reference, num_threads

LIST_LENGTH = 32
BLOCK_ROWS = 256


class Neighbours:
    """Nearest images of other clusters for each image, penalties included."""

    def __init__(self, images: np.ndarray, owner: np.ndarray) -> None:
        self.images, self.owner = images, owner
        self.single = images.astype(np.float32)
        error = (images.shape[1] + 32) * 2.0**-24
        self.squares = np.einsum("ij,ij->i", images, images) * (1 - error)
        count = len(images)
        self.width = min(LIST_LENGTH, max(count - 1, 1))
        self.ids = np.zeros((count, self.width), np.int64)
        self.squared = np.full((count, self.width), np.inf)
        #: Lower bound of d + penalty of images that are not in the list.
        self.bound = np.full(count, -np.inf)
        self.trusted = np.zeros(count, bool)
        module: Any = kernel("merging") or merging_reference
        self.pairs, self.row = module.squared_pairs, module.squared_distances

    def renew(self, rows: np.ndarray, part: np.ndarray) -> None:
        """Recompute the lists of the images ``rows``; part: (C,) penalty of each cluster."""
        part = part[self.owner]
        for start in range(0, len(rows), BLOCK_ROWS):
            some = rows[start : start + BLOCK_ROWS]
            low = self.squares[some, None] + (self.squares + part)
            low -= 2.0 * (self.single[some] @ self.single.T)
            low[self.owner[some, None] == self.owner] = np.inf
            near = np.argpartition(low, self.width - 1, axis=1)[:, : self.width]
            foreign = np.isfinite(np.take_along_axis(low, near, 1))
            low[np.arange(len(some))[:, None], near] = np.inf
            self.bound[some] = low.min(axis=1)
            self.ids[some] = near
            squared = self.pairs(
                self.images, np.repeat(some, self.width), near.ravel(), num_threads()
            )
            self.squared[some] = np.where(foreign, squared.reshape(near.shape), np.inf)

    def scan(self, row: int, part: np.ndarray) -> None:
        """Fill a list from exact distances: the nearest image of each nearest cluster.

        The list is valid until the next merge. Images that are not listed lose ties.
        """
        everyone = np.arange(len(self.images))
        apart = self.row(self.images, self.images[row], everyone, num_threads())
        apart[self.owner == self.owner[row]] = np.inf
        total = apart + part[self.owner]
        order = np.lexsort((self.owner, total))
        _, first = np.unique(self.owner[order], return_index=True)
        kept = order[np.sort(first)]
        kept = kept[np.isfinite(total[kept])]
        self.bound[row] = total[kept[self.width]] if len(kept) > self.width else np.inf
        kept = kept[: self.width]
        self.ids[row], self.squared[row] = 0, np.inf
        self.ids[row, : len(kept)], self.squared[row, : len(kept)] = kept, apart[kept]
        self.trusted[row] = True

    def uncertain(self, best: np.ndarray) -> np.ndarray:
        """Return a (P,) mask of images whose bound allows a cluster nearer than the (C,) best."""
        limit = best[self.owner]
        return np.where(self.trusted, self.bound < limit, self.bound <= limit) & (
            self.bound < np.inf
        )

    def nearest(self, part: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (C,) smallest d + penalty of a listed image and (C,) its cluster, or -1."""
        mine = np.repeat(self.owner, self.width)
        other = self.owner[self.ids.ravel()]
        values = self.squared.ravel() + part[other]
        values[mine == other] = np.inf
        best = np.full(count, np.inf)
        np.minimum.at(best, mine, values)
        tied = np.flatnonzero(np.isfinite(values) & (values == best[mine]))
        cluster = np.full(count, count)
        # Ties go to the smaller, then the larger id; for a fixed cluster, to the smaller other id.
        np.minimum.at(cluster, mine[tied], other[tied])
        cluster[cluster == count] = -1
        return best, cluster


def minimum_merges_in_rounds(
    clusters: Clusters, rule: Rule, num_merges: int, features: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``num_merges`` merges under minimum with none, sse or size.

    Args:
        clusters: Changed in place.
        rule: minimum with none, sse or size.
        num_merges: Number of merges.
        features: (N, D) floating.
        owner: (N,) slots; -1 excludes an image.

    Returns:
        As ``greedy_merges``: (M, 2) int64 slots (smaller, larger) and (M,) float64 distances.
    """
    if rule.regularizer == "none" or rule.weight == 0:
        return _from_edges(*nearest_edges(features, owner, clusters, rule, num_merges))
    clustered = owner >= 0
    lists = Neighbours(features[clustered].astype(np.float64), owner[clustered].copy())
    lists.renew(np.arange(len(lists.owner)), rule.own(clusters.sizes, clusters.sse))
    pairs: list[tuple[int, int]] = []
    heights: list[float] = []
    height = np.zeros(len(clusters))
    alive = np.ones(len(clusters), bool)
    limit = np.inf
    while alive.sum() > 1:
        part = rule.own(clusters.sizes, clusters.sse)
        best, other = lists.nearest(part, len(clusters))
        uncertain = lists.uncertain(best)
        certain = alive & (best + part <= limit)
        certain[lists.owner[uncertain]] = False
        mutual = np.flatnonzero(certain & (other > np.arange(len(other))))
        mutual = mutual[certain[other[mutual]] & (other[other[mutual]] == mutual)]
        if not len(mutual):
            images = np.flatnonzero(uncertain)
            slots = lists.owner[images]
            images = images[np.minimum(lists.bound[images], best[slots]) + part[slots] <= limit]
            if not len(images):
                break
            lists.renew(images, part)
            best, _ = lists.nearest(part, len(clusters))
            still = lists.uncertain(best)
            for image in images[still[images]].tolist():
                lists.scan(image, part)
            continue
        for a, b in zip(mutual.tolist(), other[mutual].tolist()):
            # The order of the sum must not depend on which id is smaller.
            height[b] = max(best[a] + part[a], height[a], height[b])
            pairs.append((a, b))
            heights.append(float(height[b]))
            squared = lists.pairs(clusters.means, np.array([a]), np.array([b]), 1)
            clusters.merge(a, b, float(squared[0]))
            alive[a] = False
        root = np.arange(len(clusters))
        root[mutual] = other[mutual]
        lists.owner = root[lists.owner]
        lists.trusted[:] = False
        if len(heights) >= num_merges:
            limit = float(np.partition(heights, num_merges - 1)[num_merges - 1])
    found, values = np.array(pairs, np.int64).reshape(-1, 2), np.array(heights)
    first = np.lexsort((found[:, 1], found[:, 0], values))[:num_merges]
    return found[first], values[first]


def _from_edges(
    low: np.ndarray, high: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return edges of a minimum spanning tree, ascending, as merges of slots."""
    root: dict[int, int] = {}

    def find(node: int) -> int:
        while node in root:
            root[node] = root.get(root[node], root[node])
            node = root[node]
        return node

    pairs = np.empty((len(values), 2), np.int64)
    for step, (i, j) in enumerate(zip(low.tolist(), high.tolist())):
        a, b = sorted((find(i), find(j)))
        pairs[step] = a, b
        root[a] = b
    return pairs, values
