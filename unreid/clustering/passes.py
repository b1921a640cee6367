"""One merge pass of BUC, HCT and DBC.

A pass computes the distances of all pairs of clusters once, and merges pairs in ascending order of
distance until a given number of merges. Two rules exist for a pair of which a cluster has already
been merged in this pass.

``union`` (BUC [0], HCT): the pair is merged unless both are already in one cluster, so that chains
can form. The merges of a pass are the lightest edges of a minimum spanning tree [1] of the complete
graph of clusters.

``skip`` (released program of DBC [2]): the cluster with the smaller id absorbs the other, and a
pair with an absorbed cluster is skipped. Cluster j is absorbed through its shortest edge (i, j)
with i < j such that i has not been absorbed before. All absorptions are therefore found by one
iteration over the clusters in ascending order, without sorting the edges.

Distances are computed in blocks, and only edges below the current limit are stored, so that memory
is linear in C for both rules.

[0] Lin et al.: A bottom-up clustering approach to unsupervised person re-identification (BUC),
    2019, https://doi.org/10.1609/aaai.v33i01.33018738
[1] Kruskal: On the shortest spanning subtree of a graph, 1956
[2] Ding et al.: Towards better validity: dispersion based clustering for unsupervised person
    re-identification (DBC), 2019, https://arxiv.org/abs/1906.01308

Notation: N images, D channels, C clusters, P points (images for ``minimum``, else clusters).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unreid.clustering.linkage import Clusters, Rule
from unreid.kernels import absorption_reference, kernel, merging_reference, num_threads

PASS_RULES = ("union", "skip")

BLOCK_ROWS = 1024
BLOCK_COLUMNS = 4096
#: Number of sampled points, from which the largest merge distance of a pass is estimated.
SAMPLE = 256
#: Edges that are buffered before the forest is updated.
WAITING = 2**18


class Forest:
    """The ``num_merges`` lightest edges of a minimum spanning tree of the edges added so far."""

    def __init__(self, count: int, num_merges: int, limit: float) -> None:
        self.count, self.num_merges = count, num_merges
        self.low = self.high = np.zeros(0, np.int64)
        self.values = np.zeros(0)
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.num_waiting = 0
        #: Upper bound of the result; larger edges are ignored.
        self.limit = limit

    def offer(self, i: np.ndarray, j: np.ndarray, values: np.ndarray) -> None:
        """Add edges i - j (clusters, i != j)."""
        keep = values <= self.limit
        self.waiting.append((np.minimum(i, j)[keep], np.maximum(i, j)[keep], values[keep]))
        self.num_waiting += int(keep.sum())
        if self.num_waiting >= WAITING:
            self.fold()

    def fold(self) -> None:
        """Reduce all added edges to those of the forest."""
        parts = [(self.low, self.high, self.values), *self.waiting]
        low, high, values = (np.concatenate(column) for column in zip(*parts))
        order = np.lexsort((high, low, values))
        low, high, values = low[order], high[order], values[order]
        spanning = (kernel("merging") or merging_reference).spanning
        kept = spanning(low, high, self.count, self.num_merges)
        self.low, self.high, self.values = low[kept], high[kept], values[kept]
        self.waiting, self.num_waiting = [], 0
        if len(kept) == self.num_merges:
            self.limit = min(self.limit, float(self.values[-1]))


class Absorptions:
    """The ``num_merges`` shortest edges of a pass by the rule ``skip``.

    Edges must be added in ascending order of their smaller cluster, as :class:`Stream` does.
    """

    def __init__(self, count: int, num_merges: int, limit: float) -> None:
        self.num_merges = num_merges
        self.low = self.high = np.zeros(0, np.int64)
        self.values = np.zeros(0)
        #: Upper bound of the result; larger edges are ignored.
        self.limit = limit
        self.time = np.full(count, np.inf)
        self.absorber = np.full(count, -1, np.int64)

    def offer(self, i: np.ndarray, j: np.ndarray, values: np.ndarray) -> None:
        """Add edges i - j (clusters, i < j)."""
        keep = values <= self.limit
        module = kernel("absorption") or absorption_reference
        module.offer(i[keep], j[keep], values[keep], self.time, self.absorber)
        # Further edges only lower these values, so the bound stays valid.
        last = np.partition(self.time, self.num_merges - 1)[self.num_merges - 1]
        self.limit = min(self.limit, float(last))

    def fold(self) -> None:
        """Sort the absorptions found."""
        high = np.flatnonzero(np.isfinite(self.time))
        low, values = self.absorber[high], self.time[high]
        first = np.lexsort((high, low, values))[: self.num_merges]
        self.low, self.high, self.values = low[first], high[first], values[first]


def pass_unions(
    features: np.ndarray, labels: np.ndarray, rule: Rule, num_merges: int, pass_rule: str = "union"
) -> np.ndarray:
    """Return the labels after one pass with ``num_merges`` merges.

    Args:
        features: (N, D) floating.
        labels: (N,) in -1..C-1, each id >= 0 used; -1 excludes an image.
        rule: Linkage and regulariser.
        num_merges: Number of merges in [1, C-1].
        pass_rule: ``"union"`` or ``"skip"``.

    Returns:
        (N,) int64, ids with gaps.
    """
    clusters = Clusters.of(features, labels)
    low, high, _ = nearest_edges(features, labels, clusters, rule, num_merges, pass_rule)
    graph = coo_array((np.ones(len(low)), (low, high)), shape=(len(clusters), len(clusters)))
    _, found = connected_components(graph, directed=False)
    return np.where(labels >= 0, found[labels], -1).astype(np.int64)


def nearest_edges(
    features: np.ndarray,
    labels: np.ndarray,
    clusters: Clusters,
    rule: Rule,
    num_merges: int,
    pass_rule: str = "union",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ``num_merges`` merges of a pass as (low, high, distance), in ascending order.

    Args:
        features: See :func:`pass_unions`.
        labels: See :func:`pass_unions`.
        clusters: Clusters of ``features`` and ``labels``.
        rule: See :func:`pass_unions`.
        num_merges: See :func:`pass_unions`.
        pass_rule: See :func:`pass_unions`.
    """
    if rule.linkage == "minimum":
        images = np.flatnonzero(labels >= 0)
        if pass_rule == "skip":  # edges in ascending order of their clusters
            images = images[np.argsort(labels[images], kind="stable")]
        points, owner = features[images].astype(np.float64), labels[images]
    else:
        points, owner = clusters.means, np.arange(len(clusters))
    stream = Stream(points, owner, clusters, rule)
    for limit in stream.limits(num_merges):
        forest: Forest | Absorptions = (Absorptions if pass_rule == "skip" else Forest)(
            len(clusters), num_merges, limit
        )
        stream.run(forest)
        if len(forest.low) == num_merges:
            break
    return forest.low, forest.high, forest.values


class Stream:
    """Compute all distances between points of different clusters, in blocks of the upper triangle.

    Candidate edges are selected by a float32 product minus its error bound. Their distances are
    then computed in float64 from coordinate differences.
    """

    def __init__(
        self, points: np.ndarray, owner: np.ndarray, clusters: Clusters, rule: Rule
    ) -> None:
        self.points, self.owner, self.clusters, self.rule = points, owner, clusters, rule
        self.single = points.astype(np.float32)
        self.module: Any = kernel("merging") or merging_reference
        error = (points.shape[1] + 32) * 2.0**-24
        self.squares = np.einsum("ij,ij->i", points, points) * (1 - error)
        own = rule.own(clusters.sizes, clusters.sse)
        #: If D = slope e + part_i + part_j, the kernel compares D with the limit without
        #: temporaries.
        self.slope = {"average": 1.0, "energy": 2.0, "minimum": 1.0}.get(rule.linkage, 0.0)
        if rule.regularizer in ("sse_union", "sse_increase") and rule.weight > 0:
            self.slope = 0.0
        if rule.linkage == "average":
            own = own + clusters.sse / clusters.sizes
        self.part = self.slope * self.squares + own[owner]

    def limits(self, num_merges: int) -> list[float]:
        """Return ascending estimates of the distance of the last merge; the last one is infinite.

        The estimates are quantiles of nearest-neighbour distances of sampled points: two points
        whose nearest neighbours are within the limit give at least one merge.
        """
        count = len(self.points)
        some = np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64)
        bound = self._bound(some, np.arange(count), self._product(some, np.arange(count)))
        bound[self.owner[some, None] == self.owner] = np.inf
        near = np.sort(bound, axis=1)[:, : max(1, min(16, count - 1))]
        share = min(1.0, 2.5 * num_merges / len(self.clusters))
        return [float(np.quantile(near[:, 0], share)), float(near[:, -1].max()), np.inf]

    def run(self, forest: Forest | Absorptions) -> None:
        """Add every edge within the limit to a forest, in ascending order of the first point.

        An edge i - j is added after all edges that end at i: those are in the same or an earlier
        block of rows, and not in a later block of columns.
        """
        count = len(self.points)
        for start in range(0, count, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, count))
            for left in range(start, count, BLOCK_COLUMNS):
                columns = np.arange(left, min(left + BLOCK_COLUMNS, count))
                # A slightly larger limit, because bounds and distances are rounded differently.
                i, j = self._below(rows, columns, forest.limit * (1 + 1e-12))
                upper = (i < j) & (self.owner[i] != self.owner[j])
                i, j = i[upper], j[upper]
                for part in range(0, len(i), WAITING):
                    a, b = i[part : part + WAITING], j[part : part + WAITING]
                    forest.offer(self.owner[a], self.owner[b], self._exact(a, b))
        forest.fold()

    def _product(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        right = self.single[columns[0] : columns[-1] + 1]
        return (torch.from_numpy(self.single[rows]) @ torch.from_numpy(right).T).numpy()

    def _below(
        self, rows: np.ndarray, columns: np.ndarray, limit: float
    ) -> tuple[np.ndarray, np.ndarray]:
        product = self._product(rows, columns)
        if self.slope:
            i, j = self.module.below(
                product, self.part[rows], self.part[columns], self.slope, limit
            )
        else:
            i, j = np.nonzero(self._bound(rows, columns, product) <= limit)
        return rows[i], columns[j]

    def _bound(self, rows: np.ndarray, columns: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Return (R, K) lower bounds of D."""
        squared = self.squares[rows, None] + self.squares[columns] - 2 * product
        np.maximum(squared, 0, out=squared)
        a, b = self.owner[rows][:, None], self.owner[columns][None]
        if self.rule.linkage == "minimum":
            return self.rule.distance(np.zeros(1), self.clusters, a, b, squared)
        return self.rule.distance(squared, self.clusters, a, b)

    def _exact(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the distances D of pairs of points, (P,) float64."""
        squared = self.module.squared_pairs(self.points, i, j, num_threads())
        a, b = self.owner[i], self.owner[j]
        if self.rule.linkage != "minimum":
            return self.rule.distance(squared, self.clusters, a, b)
        means = self.clusters.means
        apart = self.module.squared_pairs(means, a, b, num_threads())
        return self.rule.distance(apart, self.clusters, a, b, squared)
