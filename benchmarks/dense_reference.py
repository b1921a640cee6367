"""Dense routines written from the published formulas, for comparison.

About twenty public repositories contain this N x N routine. The code here is our own. Where a
formula leaves a choice, the faster option is used.

[0] Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017,
    arXiv:1701.08398.
[1] Ge et al., Self-paced contrastive learning (SpCL), NeurIPS 2020, arXiv:2006.02713.

Notation: N images, D channels.
"""

from __future__ import annotations

import numpy as np
import torch


def reciprocal(rank: np.ndarray, i: int, width: int) -> np.ndarray:
    """Return the k-reciprocal neighbours of image i, k = ``width``."""
    forward = rank[i, :width]
    return forward[(rank[forward, :width] == i).any(axis=1)]


def expanded(full: list[np.ndarray], half: list[np.ndarray], i: int) -> np.ndarray:
    """Return the expanded k-reciprocal set of image i."""
    sets = [full[i]]
    for candidate in full[i]:
        theirs = half[candidate]
        if len(np.intersect1d(theirs, full[i])) > 2 / 3 * len(theirs):
            sets.append(theirs)
    return np.unique(np.concatenate(sets))


def encodings(features: np.ndarray, rank: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """Return (N, N) float32 encodings: softmax of -|x - y|^2, averaged over k2 neighbours."""
    num, half_width = len(rank), int(np.around(k1 / 2)) + 1
    full = [reciprocal(rank, i, k1) for i in range(num)]
    half = [reciprocal(rank, i, half_width) for i in range(num)]
    tensor = torch.from_numpy(features)
    encoding = np.zeros((num, num), dtype=np.float32)
    for i in range(num):
        members = expanded(full, half, i)
        squared = 2.0 - 2.0 * (tensor[members] @ tensor[i])
        encoding[i, members] = torch.softmax(-squared, dim=0).numpy()
    if k2 == 1:
        return encoding
    averaged = np.empty_like(encoding)
    for i in range(num):
        averaged[i] = encoding[rank[i, :k2]].mean(axis=0)
    return averaged


def jaccard(features: np.ndarray, rank: np.ndarray, k1: int = 30, k2: int = 6) -> np.ndarray:
    """Return the dense (N, N) float32 Jaccard distance from neighbours (N, k1), self first."""
    encoding = encodings(features, rank, k1, k2)
    num = len(encoding)
    holders = [np.flatnonzero(encoding[:, c]) for c in range(num)]
    distance = np.zeros((num, num), dtype=np.float32)
    for i in range(num):
        shared = np.zeros(num, dtype=np.float32)
        for c in np.flatnonzero(encoding[i]):
            who = holders[c]
            shared[who] += np.minimum(encoding[i, c], encoding[who, c])
        distance[i] = 1.0 - shared / (2.0 - shared)
    return np.maximum(distance, 0.0, out=distance)
