"""Exact agglomerative clustering in rounds that merge all mutual nearest neighbours.

Under a reducible rule [0], mutual nearest neighbours stay so until they are merged. Merging all of
them in one round therefore gives the same tree as merging one pair at a time. Each cluster stores a
list of its T nearest clusters, and a lower bound of the distance to all others. After a merge, both
stay valid: a union is not nearer to a third cluster than the nearer of its parts was. The list of
the union follows from the lists of its parts by the Lance-Williams recurrence [1]. The distances of
a cluster are recomputed only when its bound is too loose to identify its nearest neighbour.

[0] Murtagh: A survey of recent advances in hierarchical clustering algorithms, 1983
[1] Lance, Williams: A general theory of classificatory sorting strategies, 1967

Notation: C clusters, D channels, T entries of a list, M merges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unreid.clustering.linkage import Clusters, Rule
from unreid.kernels import kernel, num_threads

#: T; at least 2, because with ties the list must contain more than the first cluster.
LIST_LENGTH = 32
BLOCK_ROWS = 1024
BLOCK_COLUMNS = 4096
#: Clusters whose distances are recomputed per round, those with the lowest bounds first.
RENEWED_ROWS = 256


class Merging:
    """State of one call of :func:`merges_in_rounds`."""

    def __init__(self, clusters: Clusters, rule: Rule, num_merges: int) -> None:
        module: Any = kernel("merging")
        self.clusters, self.num_merges = clusters, num_merges
        self.count, channels = clusters.means.shape
        scale = float(clusters.lengths.max() ** 2)
        # Far above float64 rounding errors, far below relevant differences.
        self.slack = 1e-13 * (scale + 0.01 * rule.weight * self.count * max(scale, 1.0))
        by = rule.weight
        self.lists = module.Lists(
            clusters.means, clusters.sizes, clusters.sse,
            min(LIST_LENGTH, max(self.count - 1, 1)),
            1.0 + (2 * by if rule.regularizer == "dispersion" else 0.0),
            by if rule.regularizer == "sse" else 0.0,
            by if rule.regularizer == "size" else 0.0,
            0.0 if rule.linkage == "average"
            else 1.0 + (by if rule.regularizer == "sse_increase" else 0.0),
            self.slack, num_threads(),
        )  # fmt: skip
        self.error = (channels + 32) * 2.0**-24
        self.active = np.arange(self.count, dtype=np.int32)
        self.pairs: list[np.ndarray] = []
        self.heights: list[np.ndarray] = []
        self.height = np.zeros(self.count)  # of the cluster in each slot
        self.num_done = 0
        self.limit = np.inf

    def note(self, low: np.ndarray, high: np.ndarray, heights: np.ndarray) -> None:
        """Record merges; a height lower than that of a part (by rounding) is raised to it."""
        heights = np.maximum(heights, np.maximum(self.height[low], self.height[high]))
        self.height[high] = heights
        self.pairs.append(np.column_stack([low, high]).astype(np.int64))
        self.heights.append(heights)
        self.num_done += len(low)
        gone = np.zeros(self.count, bool)
        gone[low] = True
        self.active = self.active[~gone[self.active]]
        if self.num_done >= self.num_merges:
            known = np.concatenate(self.heights)
            self.limit = float(np.partition(known, self.num_merges - 1)[self.num_merges - 1])

    def merge_equal(self) -> None:
        """Merge clusters at distance zero, in the order of their ids.

        Without this step, a group of equal clusters would merge one pair per round, because ties
        are broken by id.
        """
        means = self.clusters.means
        probe = means @ np.cos(np.arange(1, means.shape[1] + 1))
        order = np.lexsort((np.arange(self.count), probe))
        suspects = order[:-1][probe[order[:-1]] == probe[order[1:]]]
        if not len(suspects):
            return
        groups: dict[bytes, int] = {}
        low, high = [], []
        members = np.flatnonzero(np.isin(probe, probe[suspects]) & (self.clusters.sse == 0))
        for slot in members.tolist():
            key = (means[slot] + 0.0).tobytes()  # -0.0 equals 0.0
            if key in groups:
                low.append(groups[key])
                high.append(slot)
                self.clusters.sizes[slot] += self.clusters.sizes[groups[key]]
            groups[key] = slot
        if low:  # the lists are filled later
            self.note(np.array(low), np.array(high), np.zeros(len(low)))

    def fill_all(self) -> None:
        """Fill the lists of all active clusters from the upper triangle of products."""
        active = self.active
        single = torch.from_numpy(self.clusters.means[active].astype(np.float32))
        squares = self._squares()
        self.lists.reset(active)
        for start in range(0, len(active), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            for first in range(start, len(active), BLOCK_COLUMNS):
                columns = slice(first, first + BLOCK_COLUMNS)
                product = (single[rows] @ single[columns].T).numpy()
                self.lists.offer(product, active[rows], active[columns], squares, True)
        self.lists.seal(active, len(active) - 1)

    def fill(self, rows: np.ndarray) -> None:
        """Fill the lists of some clusters."""
        means, active, squares = self.clusters.means, self.active, self._squares()
        self.lists.reset(rows)
        left = torch.from_numpy(means[rows].astype(np.float32))
        for first in range(0, len(active), BLOCK_ROWS):
            columns = active[first : first + BLOCK_ROWS]
            right = torch.from_numpy(means[columns].astype(np.float32))
            self.lists.offer((left @ right.T).numpy(), rows, columns, squares, False)
        self.lists.seal(rows, len(active) - 1)

    def _squares(self) -> np.ndarray:
        """Return the (C,) squared lengths minus the error bound of a float32 product."""
        means = self.clusters.means
        return np.einsum("ij,ij->i", means, means) * (1 - self.error)

    def round(self) -> bool:
        """Merge all mutual nearest neighbours, or recompute rows; return False when done."""
        arrays = self.lists.arrays
        active = self.active
        if len(active) < 2:
            return False
        self.lists.resolve(active)
        nearest, sure, best = arrays["nearest"], arrays["sure"], arrays["best"]
        others = nearest[active]
        mutual = sure[active] & (others > active) & (best[active] <= self.limit)
        mutual[mutual] = (nearest[others[mutual]] == active[mutual]) & sure[others[mutual]]
        if mutual.any():
            low, high = active[mutual], others[mutual]
            heights = best[low].copy()
            self.lists.merge(low, high)
            self.note(low, high, heights)
            return True
        lower = np.minimum(best[active], arrays["bound"][active])
        waiting = ~sure[active] & (lower <= self.limit)
        if not waiting.any():
            return False
        rows, lower = active[waiting], lower[waiting]
        rows = np.sort(rows[np.argsort(lower, kind="stable")[:RENEWED_ROWS]])
        self.fill(rows)
        self.lists.resolve(rows)
        # Candidates that are equal up to rounding need exact distances.
        tied = rows[~sure[rows]]
        if len(tied):
            self.lists.scan(tied, active)
        return True


def merges_in_rounds(
    clusters: Clusters, rule: Rule, num_merges: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``num_merges`` merges, for reducible rules on means.

    Args:
        clusters: Changed in place.
        rule: average with none, sse, size or dispersion; ward with none or sse_increase.
        num_merges: Number of merges.

    Returns:
        (M, 2) int64 slots (smaller, larger) and (M,) float64 distances, as ``greedy_merges`` does.
    """
    merging = Merging(clusters, rule, num_merges)
    if rule.regularizer != "size" or rule.weight == 0:
        merging.merge_equal()
    merging.fill_all()
    while merging.round():
        pass
    pairs, heights = np.concatenate(merging.pairs), np.concatenate(merging.heights)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], heights))[:num_merges]
    return pairs[order], heights[order]
