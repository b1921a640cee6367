"""Slow bottom-up merging written from the formulas, over lists of members."""

from __future__ import annotations

import itertools

import numpy as np


def sse(points: np.ndarray) -> float:
    """Return the sum of squared distances to the mean."""
    return float(((points - points.mean(axis=0)) ** 2).sum())


def distance(
    x: np.ndarray, a: list[int], b: list[int], linkage: str, regularizer: str, weight: float
) -> float:
    """Return D(A, B) from all pairs of members."""

    def mean_pairs(p: np.ndarray, q: np.ndarray) -> float:
        return float(((p[:, None] - q[None]) ** 2).sum(axis=2).mean())

    p, q, both = x[a], x[b], x[a + b]
    if linkage == "average":
        base = mean_pairs(p, q)
    elif linkage == "minimum":
        base = float(((p[:, None] - q[None]) ** 2).sum(axis=2).min())
    elif linkage == "energy":
        base = 2 * mean_pairs(p, q) - mean_pairs(p, p) - mean_pairs(q, q)
    elif linkage == "ward":
        base = sse(both) - sse(p) - sse(q)
    else:
        m, n = p.mean(axis=0), q.mean(axis=0)
        lengths = np.linalg.norm(m), np.linalg.norm(n)
        # Compute 2 - 2 cos from the difference, so that the distance of equal points is exactly 0.
        base = float(((m / lengths[0] - n / lengths[1]) ** 2).sum()) if min(lengths) else 2.0
    extra = {
        "none": lambda: 0.0,
        "sse": lambda: sse(p) + sse(q),
        "size": lambda: float(len(a) + len(b)),
        "dispersion": lambda: mean_pairs(p, p) + mean_pairs(q, q),
        "sse_union": lambda: sse(both),
        "sse_increase": lambda: sse(both) - sse(p) - sse(q),
    }[regularizer]
    return base + weight * extra()


def groups_of(labels: np.ndarray) -> dict[int, list[int]]:
    """Return the members of each cluster; ids are in order of first appearance."""
    groups: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        if label >= 0:
            groups.setdefault(int(label), []).append(i)
    return dict(enumerate(groups.values()))


def exact_labels(
    x: np.ndarray, labels: np.ndarray, merges: int, rule: tuple[str, str, float]
) -> list[np.ndarray]:
    """Return labels after 0, 1, ..., ``merges`` merges of the two nearest clusters."""
    groups = groups_of(labels)
    found = {p: distance(x, groups[p[0]], groups[p[1]], *rule)
             for p in itertools.combinations(groups, 2)}  # fmt: skip
    history = [from_groups(groups, len(x))]
    for _ in range(merges):
        low, high = min(found, key=lambda pair: (found[pair], pair))
        groups[high] = groups.pop(low) + groups[high]
        found = {pair: value for pair, value in found.items() if low not in pair}
        for other in groups.keys() - {high}:
            pair = min(other, high), max(other, high)
            found[pair] = distance(x, groups[pair[0]], groups[pair[1]], *rule)
        history.append(from_groups(groups, len(x)))
    return history


def pass_labels(
    x: np.ndarray, labels: np.ndarray, merges: int, passes: int, rule: tuple[str, str, float]
) -> np.ndarray:
    """Return labels of ``union`` passes from the sorted list of all pairs."""
    for _ in range(passes):
        groups = groups_of(labels)
        pairs = sorted(
            (distance(x, groups[i], groups[j], *rule), i, j)
            for i, j in itertools.combinations(sorted(groups), 2)
        )
        member = {c: c for c in groups}
        left = merges
        for _, i, j in pairs:
            if left and member[i] != member[j]:
                old = member[j]
                for c in member:
                    if member[c] == old:
                        member[c] = member[i]
                left -= 1
        joined: dict[int, list[int]] = {}
        for c, root in member.items():
            joined.setdefault(root, []).extend(groups[c])
        labels = from_groups(joined, len(x))
    return labels


def skip_pass_labels(
    x: np.ndarray, labels: np.ndarray, merges: int, passes: int, rule: tuple[str, str, float]
) -> np.ndarray:
    """Return labels of ``skip`` passes (DBC): pairs with an absorbed id are skipped."""
    for _ in range(passes):
        groups = groups_of(labels)
        pairs = sorted(
            (distance(x, groups[i], groups[j], *rule), i, j)
            for i, j in itertools.combinations(sorted(groups), 2)
        )
        left = merges
        for _, i, j in pairs:
            if left and i in groups and j in groups:
                groups[i] = groups[i] + groups.pop(j)
                left -= 1
        labels = from_groups(groups, len(x))
    return labels


def from_groups(groups: dict[int, list[int]], count: int) -> np.ndarray:
    """Return labels in order of first appearance, and -1 for images in no group."""
    labels = np.full(count, -1, np.int64)
    for new, members in enumerate(sorted(groups.values(), key=min)):
        labels[members] = new
    return labels
