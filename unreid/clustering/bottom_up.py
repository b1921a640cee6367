"""Bottom-up merging of clusters by a regularised distance: SphereCluster, BUC, HCT and DBC.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification, 2022,
    https://doi.org/10.1145/3501404
[1] Lin et al.: A bottom-up clustering approach to unsupervised person re-identification (BUC),
    2019, https://doi.org/10.1609/aaai.v33i01.33018738
[2] Murtagh: A survey of recent advances in hierarchical clustering algorithms, 1983
[3] Ding et al.: Towards better validity: dispersion based clustering for unsupervised person
    re-identification (DBC), 2019, https://arxiv.org/abs/1906.01308

Notation: N images, D channels, C clusters, M merges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unreid.checks import check_choice, check_features, check_integer
from unreid.clustering.exact_rounds import merges_in_rounds
from unreid.clustering.greedy import greedy_merges
from unreid.clustering.linkage import Clusters, Rule
from unreid.clustering.minimum_rounds import minimum_merges_in_rounds
from unreid.clustering.partition import check_labels, compact
from unreid.clustering.passes import PASS_RULES, pass_unions
from unreid.kernels import kernel

UPDATES = ("exact", "pass")


def bottom_up(
    features: Any,
    *,
    num_merges: int,
    passes: int = 1,
    linkage: str = "average",
    regularizer: str = "sse",
    weight: float = 0.01,
    update: str = "exact",
    labels: ArrayLike | None = None,
    sphere: bool = True,
    pass_rule: str = "union",
) -> np.ndarray:
    """Return the labels after ``passes * num_merges`` merges of the nearest clusters.

    ``update="exact"`` updates the distances after every merge and keeps the first
    ``passes * num_merges`` merges of the tree. ``"pass"`` follows [1]: each pass computes all
    distances once and unites pairs in ascending order until ``num_merges`` clusters were merged.
    ``pass_rule`` selects the pairs. ``"union"`` [1] unites all pairs of different clusters, so
    that chains form. With ``"skip"`` [3] the cluster with the smaller id absorbs the other, and
    pairs with a cluster absorbed in this pass are skipped.

    Of pairs with equal distances, the pair with the smaller id comes first, then the one with the
    smaller other id. Initial ids are numbered by first appearance. With ``"exact"`` a merged
    cluster keeps the larger id of its two; each pass ends with renumbering by first appearance.

    Args:
        features: (N, D) floating, numpy or torch; unit rows unless ``sphere`` is False.
        num_merges: Merges per pass, >= 0.
        passes: Number of passes, >= 1.
        linkage: See ``unreid.clustering.linkage``.
        regularizer: See ``unreid.clustering.linkage``.
        weight: Weight of the regulariser, >= 0.
        update: "exact" or "pass".
        labels: (N,) initial labels; negative labels are noise, which is not merged. None starts
            with one cluster per image.
        sphere: False accepts features of any length (the ablation of the sphere feature [0]).
        pass_rule: "union" or "skip"; not used by ``update="exact"``.

    Returns:
        (N,) int64, -1 for noise in ``labels``, else 0..C-1 by first appearance.

    Raises:
        ValueError, TypeError: An argument is out of range, or there are more merges than
            clusters minus one.
    """
    check_choice("update", update, UPDATES)
    check_choice("pass_rule", pass_rule, PASS_RULES)
    num_merges = check_integer("num_merges", num_merges, 0)
    total = num_merges * check_integer("passes", passes, 1)
    rule = Rule(linkage, regularizer, weight)
    array, start = _prepare(features, labels, sphere)
    count = _count(array, start)
    if total > max(count - 1, 0):
        raise ValueError(
            f"passes * num_merges must be <= {max(count - 1, 0)}, the initial number of clusters"
            f" minus one, got {passes} * {num_merges}"
        )
    if total == 0:
        return np.arange(len(array)) if start is None else start
    if update == "exact":
        merges, _ = _tree(array, start, rule, total)
        return cut_tree(merges, total, len(array), labels=start)
    current = np.arange(len(array)) if start is None else start
    for _ in range(passes):
        current = compact(pass_unions(array, current, rule, num_merges, pass_rule))
    return current


def merge_tree(
    features: Any,
    *,
    linkage: str = "average",
    regularizer: str = "sse",
    weight: float = 0.01,
    labels: ArrayLike | None = None,
    sphere: bool = True,
    num_merges: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tree of exact merging; ``cut_tree`` cuts it at any number of clusters.

    Args:
        features: See :func:`bottom_up`.
        linkage: See ``unreid.clustering.linkage``.
        regularizer: See ``unreid.clustering.linkage``.
        weight: Weight of the regulariser, >= 0.
        labels: See :func:`bottom_up`.
        sphere: See :func:`bottom_up`.
        num_merges: Number of merges; None merges to one cluster.

    Returns:
        (M, 2) int64: merge t joins nodes of ids merges[t, 0] < merges[t, 1] to the node C + t,
        where C is the number of clusters at the start, numbered by first appearance (scipy's
        convention); and (M,) float64 the distances at which they merged, non-decreasing for
        reducible rules (``Rule.reducible``).
    """
    rule = Rule(linkage, regularizer, weight)
    array, start = _prepare(features, labels, sphere)
    most = max(_count(array, start) - 1, 0)
    wanted = most if num_merges is None else check_integer("num_merges", num_merges, 0, most)
    if wanted == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    return _tree(array, start, rule, wanted)


def cut_tree(
    merges: np.ndarray, num_merges: int, num_images: int, *, labels: ArrayLike | None = None
) -> np.ndarray:
    """Return the labels after the first merges of a tree.

    Args:
        merges: (M, 2) of ``merge_tree``.
        num_merges: Number of merges in 0..M.
        num_images: N.
        labels: (N,) initial labels of the tree, if any.

    Returns:
        (N,) int64 labels 0..C-1 by first appearance, -1 where ``labels`` are negative.
    """
    check_integer("num_merges", num_merges, 0, len(merges))
    start = np.arange(num_images) if labels is None else compact(check_labels("labels", labels))
    if len(start) != num_images:
        raise ValueError(f"labels must have shape ({num_images},), got {start.shape}")
    count = int(start.max(initial=-1)) + 1
    parent = np.arange(count + num_merges)
    parent[merges[:num_merges].ravel()] = np.repeat(np.arange(count, len(parent)), 2)
    # Parents come after their children, so path halving converges.
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return compact(np.where(start >= 0, parent[start] if count else start, -1))


def _prepare(
    features: Any, labels: ArrayLike | None, sphere: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the features as a float32 or float64 array, and the labels renumbered."""
    check_features("features", features, unit=sphere)
    if not isinstance(features, np.ndarray):
        features = features.detach().float().cpu().numpy()
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32)
    start = None if labels is None else compact(check_labels("labels", labels, len(features)))
    return np.ascontiguousarray(features), start


def _count(features: np.ndarray, start: np.ndarray | None) -> int:
    return len(features) if start is None else int(start.max(initial=-1)) + 1


def _tree(
    features: np.ndarray, start: np.ndarray | None, rule: Rule, num_merges: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first merges, by the fastest algorithm that is exact for the rule."""
    clusters = Clusters.of(features, start)
    owner = np.arange(len(features)) if start is None else start
    if kernel("merging") is None or not rule.reducible or rule.regularizer == "sse_union":
        pairs, heights = greedy_merges(clusters, rule, num_merges, features, owner)
    elif rule.linkage == "minimum":
        pairs, heights = minimum_merges_in_rounds(clusters, rule, num_merges, features, owner)
    else:
        pairs, heights = merges_in_rounds(clusters, rule, num_merges)
    return _nodes(pairs, _count(features, start)), heights


def _nodes(pairs: np.ndarray, count: int) -> np.ndarray:
    """Convert pairs of slots to pairs of tree nodes; a union is in the larger slot of its pair."""
    node = np.arange(count)
    merges = np.empty_like(pairs)
    for step, (low, high) in enumerate(pairs.tolist()):
        merges[step] = sorted((node[low], node[high]))
        node[high] = count + step
    return merges
