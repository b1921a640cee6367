"""Cluster statistics, and selection of the clusters and images that the report shows.

Notation: N images, C clusters, M cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unreid.structures import NOISE

#: Minimum size of a cluster listed as purest or most mixed; smaller ones can be pure by chance.
MIN_SIZE = 4


@dataclass(frozen=True)
class ClusterTable:
    """Statistics with one entry per cluster.

    Attributes:
        ids: (C,) labels.
        sizes: (C,) numbers of images.
        cameras: (C,) numbers of distinct cameras.
        purity: (C,) share of the most frequent person, 0..1; None without ground truth.
    """

    ids: np.ndarray
    sizes: np.ndarray
    cameras: np.ndarray
    purity: np.ndarray | None


def tabulate_clusters(
    labels: np.ndarray, camids: np.ndarray, pids: np.ndarray | None = None
) -> ClusterTable:
    """Return size, number of cameras and purity of each cluster.

    Args:
        labels: (N,) integer, -1 is noise, else >= 0; labels may have gaps.
        camids: (N,) integer cameras.
        pids: (N,) integer ground-truth identities, or None.
    """
    kept = labels != NOISE
    ids, of = np.unique(labels[kept], return_inverse=True)
    sizes = np.bincount(of, minlength=len(ids))
    seen = np.unique(np.stack([of, camids[kept]]), axis=1)[0]
    purity = None
    if pids is not None:
        (rows, _), counts = np.unique(np.stack([of, pids[kept]]), axis=1, return_counts=True)
        largest = np.zeros(len(ids), dtype=np.int64)
        np.maximum.at(largest, rows, counts)
        purity = largest / np.maximum(sizes, 1)
    return ClusterTable(ids, sizes, np.bincount(seen, minlength=len(ids)), purity)


def select_clusters(table: ClusterTable, num: int) -> dict[str, list[int]]:
    """Return the clusters to show: kind -> positions in the table, most extreme first.

    Ties in purity are broken by size (larger first), then by label. Purest and most mixed clusters
    have :data:`MIN_SIZE` images or more. Without ground truth, the kinds are the clusters with the
    most cameras and the largest single-camera clusters.

    Args:
        table: Of :func:`tabulate_clusters`.
        num: Maximum number of clusters of each kind.
    """
    position = np.arange(len(table.ids))
    chosen = {"largest": np.lexsort((position, -table.sizes))[:num]}
    if table.purity is not None:
        enough = np.flatnonzero(table.sizes >= MIN_SIZE)
        purity, sizes = table.purity[enough], table.sizes[enough]
        chosen["purest"] = enough[np.lexsort((enough, -sizes, -purity))[:num]]
        mixed = enough[np.lexsort((enough, -sizes, purity))]
        chosen["most mixed"] = mixed[table.purity[mixed] < 1][:num]
    else:
        chosen["in most cameras"] = np.lexsort((position, -table.sizes, -table.cameras))[:num]
        alone = np.flatnonzero(table.cameras == 1)
        chosen["in one camera"] = alone[np.lexsort((alone, -table.sizes[alone]))[:num]]
    return {kind: [int(i) for i in rows] for kind, rows in chosen.items() if len(rows)}


def select_members(
    members: np.ndarray, camids: np.ndarray, pids: np.ndarray | None, num: int
) -> np.ndarray:
    """Return up to ``num`` images of a cluster, balanced over its persons.

    The most frequent person comes first. Without ground truth, images are balanced over cameras.

    Args:
        members: Indices of the cluster's images, ascending.
        camids: (N,) cameras of all images.
        pids: (N,) identities of all images, or None.
        num: Maximum number of images.
    """
    groups = (camids if pids is None else pids)[members]
    _, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(members) <= num:
        taken = np.arange(len(members))
    else:
        # Round robin: the first image of every group, then the second; larger groups first.
        order = np.argsort(of, kind="stable")
        starts = np.cumsum(counts) - counts
        turn = np.empty(len(members), dtype=np.int64)
        turn[order] = np.arange(len(members)) - np.repeat(starts, counts)
        taken = np.lexsort((of, -counts[of], turn))[:num]
    taken = taken[np.lexsort((taken, of[taken], -counts[of[taken]]))]
    return members[taken]


def person_letters(persons: np.ndarray) -> list[str]:
    """Return A, B, C, ... for persons in order of first appearance; AA follows Z."""
    names: dict[int, str] = {}
    for person in persons.tolist():
        if person not in names:
            number, name = len(names), ""
            while number >= 0:
                name = chr(ord("A") + number % 26) + name
                number = number // 26 - 1
            names[person] = name
    return [names[person] for person in persons.tolist()]
