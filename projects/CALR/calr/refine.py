"""Refine global clusters by the local clusters of a reliable image (pivot).

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: N images, k neighbours; G global cluster, L local cluster, S node score.
"""

from __future__ import annotations

import math

import numpy as np

from unreid.checks import check_choice, check_number
from unreid.structures import NOISE


def node_scores(
    indices: np.ndarray,
    similarities: np.ndarray,
    min_similarity: float,
    *,
    self_in_mean: bool = False,
) -> np.ndarray:
    """Return S_i, the sum over neighbours j != i with an edge of 1 / (d_ij + dbar) [0].

    An edge has cos_ij >= min_similarity; d = 1 - cos, dbar the mean distance of all neighbours.

    Unlike the released code, dbar excludes the distance 0 of an image to itself (neither sum has
    this term). If every row contains its image, dbar of the released code is (k - 1) / k of this
    one; ``self_in_mean`` selects it. The scores differ by more than a common factor, so pivots may
    differ.

    Args:
        indices: (N, k) integer, neighbours of each image.
        similarities: (N, k) float cosines.
        min_similarity: Minimum cosine of an edge.
        self_in_mean: Include the distance 0 of an image to itself in dbar, as the released code.

    Returns:
        (N,) float64 >= 0; 0 for an image without an edge.
    """
    other = indices != np.arange(len(indices))[:, None]
    distances = np.maximum(1.0 - similarities.astype(np.float64), 0.0)
    distances[~other] = 0.0  # exact distance of an image to itself
    mean = distances[other | self_in_mean].mean() if other.any() else 1.0
    edges = other & (similarities >= min_similarity)
    # If all images are identical, all distances are 0 and all scores are equal and large.
    return np.where(edges, 1.0 / (distances + max(mean, 1e-12)), 0.0).sum(axis=1)


def pivots(
    labels: np.ndarray, groups: np.ndarray, scores: np.ndarray, rule: str = "max"
) -> np.ndarray:
    """Return one image (pivot) per group: in a cluster, with a score above the overall mean.

    Args:
        labels: (N,) global labels, -1 = noise.
        groups: (N,) integer >= 0; each group has at most one pivot.
        scores: (N,) node scores.
        rule: ``"max"``: the highest score, of equal scores the first; ``"last"``: the last in index
            order, as in the released code.

    Returns:
        (P,) indices, ascending by group; groups without such an image have no pivot.
    """
    check_choice("rule", rule, ("max", "last"))
    good = np.flatnonzero((labels != NOISE) & (scores > scores.mean()))
    # Sort by group, with the pivot at the end of its group.
    order = np.lexsort(
        (-good, scores[good], groups[good]) if rule == "max" else (good, groups[good])
    )
    ranked = good[order]
    last = np.append(groups[ranked][1:] != groups[ranked][:-1], True)[: len(ranked)]
    return ranked[last]


def refine(
    labels: np.ndarray,
    local_labels: np.ndarray,
    camids: np.ndarray,
    scores: np.ndarray,
    *,
    pivot: str = "max",
    per_camera: bool = False,
    share: float = 1.0,
) -> np.ndarray:
    """Remove images from global clusters that the local cluster of the pivot contradicts [0].

    Let p be the pivot of a global cluster G(p), and L(p) its local cluster. An image of G(p) that
    is of the camera of p but not in L(p) becomes noise. Images of other cameras are kept.

    Args:
        labels: (N,) int64 global labels, -1 = noise.
        local_labels: (N,) int64 >= 0; equal labels in one camera mean the same local cluster.
        camids: (N,) int64 camera ids.
        scores: (N,) scores of :func:`node_scores`.
        pivot: Rule of :func:`pivots`.
        per_camera: Use one pivot per camera in each cluster; not in [0].
        share: Fraction of the removals that are made, in 0..1, in order of increasing score.

    Returns:
        (N,) int64 labels; ids are not renumbered, and the input is not changed.
    """
    check_number("share", share, 0, 1)
    num_cameras = int(camids.max()) + 1
    groups = np.where(labels == NOISE, 0, labels)
    if per_camera:
        groups = groups * num_cameras + camids
    chosen = pivots(labels, groups, scores, pivot)
    pivot_of = np.full(int(groups.max()) + 1, -1, dtype=np.int64)
    pivot_of[groups[chosen]] = chosen
    own = pivot_of[groups]
    contradicted = np.flatnonzero(
        (labels != NOISE)
        & (own >= 0)
        & (camids == camids[own])
        & (local_labels != local_labels[own])
    )
    if share < 1:
        worst = np.argsort(scores[contradicted], kind="stable")
        contradicted = contradicted[worst[: round(share * len(contradicted))]]
    refined = labels.copy()
    refined[contradicted] = NOISE
    return refined


def removal_share(epoch: int, num_epochs: int) -> float:
    """Return 0.5 (1 + cos(pi e / (3 E))): 1 at the start, 0.75 at the end [0, self-paced]."""
    return 0.5 * (1.0 + math.cos(math.pi * epoch / (3.0 * num_epochs)))
