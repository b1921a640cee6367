"""Which clusters to show, and how many cameras see one.

Notation: N images, C clusters, M cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unreid.structures import NOISE

#: Smaller clusters are pure by size alone.
MIN_SIZE = 4


@dataclass(frozen=True)
class ClusterTable:
    """One entry per cluster.

    Attributes:
        ids: (C,) labels.
        sizes: (C,) images.
        cameras: (C,) cameras that see it.
        purity: (C,) share of its commonest person, 0..1; None without ids.
    """

    ids: np.ndarray
    sizes: np.ndarray
    cameras: np.ndarray
    purity: np.ndarray | None


def tabulate_clusters(
    labels: np.ndarray, camids: np.ndarray, pids: np.ndarray | None = None
) -> ClusterTable:
    """Size, cameras and purity of each cluster.

    Args:
        labels: (N,) integer, -1 is noise, else >= 0; ids may have gaps.
        camids: (N,) integer.
        pids: (N,) integer, the truth, or None.
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


def choose(table: ClusterTable, num: int) -> dict[str, list[int]]:
    """Kind of cluster -> positions in the table, the most telling first.

    Of clusters of equal purity the larger one comes first, then the one of the lower id. Purest
    and most mixed are of :data:`MIN_SIZE` images or more. Without ids nobody knows what is pure:
    then it is those that most cameras see, and the largest that one camera alone sees.
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


def show_members(
    members: np.ndarray, camids: np.ndarray, pids: np.ndarray | None, num: int
) -> np.ndarray:
    """Up to ``num`` of a cluster's images, spread over its persons (the commonest first) or, when
    nobody knows those, over its cameras.

    Args:
        members: Indices of the cluster's images, ascending.
        camids: (N,) cameras of all images.
        pids: (N,) ids of all images, or None.
        num: At most so many.
    """
    groups = (camids if pids is None else pids)[members]
    _, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(members) <= num:
        taken = np.arange(len(members))
    else:
        # In turns: the first of every group, then the second; the larger group goes first.
        order = np.argsort(of, kind="stable")
        starts = np.cumsum(counts) - counts
        turn = np.empty(len(members), dtype=np.int64)
        turn[order] = np.arange(len(members)) - np.repeat(starts, counts)
        taken = np.lexsort((of, -counts[of], turn))[:num]
    taken = taken[np.lexsort((taken, of[taken], -counts[of[taken]]))]
    return members[taken]


def letters(persons: np.ndarray) -> list[str]:
    """A, B, C, ... for the persons in order of first appearance; after Z comes AA."""
    names: dict[int, str] = {}
    for person in persons.tolist():
        if person not in names:
            number, name = len(names), ""
            while number >= 0:
                name = chr(ord("A") + number % 26) + name
                number = number // 26 - 1
            names[person] = name
    return [names[person] for person in persons.tolist()]
