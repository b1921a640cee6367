"""Refines global clusters by local (within one camera) ones, around a reliable pivot.

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

    Unlike the released program, dbar is without the distance 0 of an image to itself. (The sum has
    no such term in either.) Where every row holds its image, the released dbar is (k - 1) / k of
    ours, which ``self_in_mean`` takes. Scores do not change by a common factor, so pivots may.

    Args:
        indices: (N, k) integer, neighbours of i.
        similarities: (N, k) float cosines.
        min_similarity: Least cosine of an edge.
        self_in_mean: Count the distance 0 of an image to itself in dbar, as the released program.

    Returns:
        (N,) float64 >= 0; 0 for an image without an edge.
    """
    other = indices != np.arange(len(indices))[:, None]
    distances = np.maximum(1.0 - similarities.astype(np.float64), 0.0)
    distances[~other] = 0.0  # to itself, exactly
    mean = distances[other | self_in_mean].mean() if other.any() else 1.0
    edges = other & (similarities >= min_similarity)
    # All images identical: every distance is 0, and every score the same large number.
    return np.where(edges, 1.0 / (distances + max(mean, 1e-12)), 0.0).sum(axis=1)


def pivots(
    labels: np.ndarray, groups: np.ndarray, scores: np.ndarray, rule: str = "max"
) -> np.ndarray:
    """One image per group: clustered, and with a score above the mean of all.

    Args:
        labels: (N,) global labels, -1 = in no cluster.
        groups: (N,) integer >= 0; one pivot is looked for in each.
        scores: (N,) node scores.
        rule: ``"max"``, the best score (the first of equals); ``"last"``, the last in index order,
            as the released program has it.

    Returns:
        (P,) indices, ascending by group; a group without a good member has none.
    """
    check_choice("rule", rule, ("max", "last"))
    good = np.flatnonzero((labels != NOISE) & (scores > scores.mean()))
    # Ascending by group, the chosen one at the end of its group.
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
    """Global labels without what the pivot's camera holds against: x in G(p), of p's camera, not
    in L(p), becomes -1 [0]. Members from other cameras stay.

    Args:
        labels: (N,) int64 global labels, -1 = noise.
        local_labels: (N,) int64 >= 0; equal within a camera means the same local cluster.
        camids: (N,) int64.
        scores: (N,) of :func:`node_scores`.
        pivot: See :func:`pivots`.
        per_camera: A pivot for each camera in each cluster, beyond [0].
        share: Of the removals, those with the lowest scores are carried out, in 0..1.

    Returns:
        (N,) int64; ids are not renumbered, the input is not changed.
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
    """0.5 (1 + cos(pi e / (3 E))): 1 at the start, 0.75 at the end [0, self-paced]."""
    return 0.5 * (1.0 + math.cos(math.pi * epoch / (3.0 * num_epochs)))
