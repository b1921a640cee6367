"""Image rows of the report: clusters, noise and ranked gallery images of queries.

Notation: N images, C clusters, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unreid.structures import NOISE
from unreid.visualization.clusters import (
    ClusterTable,
    person_letters,
    select_clusters,
    select_members,
)
from unreid.visualization.retrieval import Retrieval

#: Clusters per kind, images per cluster, queries per kind.
CLUSTERS, MEMBERS, QUERIES = 4, 14, 5

#: Path of an image -> ``data:`` URI, or None if it cannot be read.
Show = Callable[[str], str | None]


@dataclass(frozen=True)
class Tile:
    """One thumbnail.

    Attributes:
        src: ``data:`` URI, or None for an unreadable image.
        caption: Text below the thumbnail.
        frame: CSS class of the frame.
        alt: Alternative text.
    """

    src: str | None
    caption: str
    frame: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Sheet:
    """A titled row of thumbnails; ``lead`` is the query, ``more`` the number of omitted images."""

    title: str
    tiles: list[Tile]
    more: int = 0
    lead: Tile | None = None


def camera_names(names: tuple[str, ...]) -> list[str]:
    """Return the names without a common dataset prefix: ``market1501_3`` -> ``3``."""
    prefixes = {name.rpartition("_")[0] for name in names}
    if len(prefixes) != 1 or "" in prefixes:
        return list(names)
    return [name.rpartition("_")[2] for name in names]


def camera_label(name: str) -> str:
    """Return ``c3`` for camera ``3``; other names are kept."""
    return f"c{name}" if name.isdigit() else name


def cluster_sheets(
    table: ClusterTable,
    labels: np.ndarray,
    camids: np.ndarray,
    pids: np.ndarray | None,
    cameras: list[str],
    paths: list[str],
    show: Show,
) -> dict[str, list[Sheet]]:
    """Return kind of cluster -> rows of thumbnails; see :func:`.clusters.select_clusters`."""
    sheets: dict[str, list[Sheet]] = {}
    for kind, rows in select_clusters(table, CLUSTERS).items():
        for row in rows:
            members = np.flatnonzero(labels == table.ids[row])
            shown = select_members(members, camids, pids, MEMBERS)
            persons = person_letters(pids[shown]) if pids is not None else [""] * len(shown)
            tiles = []
            for i, person in zip(shown.tolist(), persons):
                frame = "" if pids is None else "right" if person == "A" else "wrong"
                camera = camera_label(cameras[camids[i]])
                tiles.append(
                    Tile(
                        show(paths[i]),
                        f"{person} · {camera}" if person else camera,
                        frame,
                        f"image {i} of camera {cameras[camids[i]]}",
                    )
                )
            words = [
                f"Cluster {table.ids[row]}",
                f"{table.sizes[row]} images",
                f"{table.cameras[row]} camera{'s' if table.cameras[row] != 1 else ''}",
            ]
            if table.purity is not None and pids is not None:
                people = len(np.unique(pids[members]))
                words.append(
                    f"{people} {'people' if people != 1 else 'person'}, purity"
                    f" {100 * table.purity[row]:.0f} %"
                )
            sheets.setdefault(kind, []).append(
                Sheet(" · ".join(words), tiles, len(members) - len(shown))
            )
    return sheets


def rank_sheets(retrieval: Retrieval, show: Show) -> dict[str, list[Sheet]]:
    """Return the best and worst queries with their top-k gallery images.

    Ties in average precision are broken by the number of matches, then by position. Each person
    has at most one query among the best and one among the worst.
    """
    order = _by_precision(retrieval)
    half = (len(order) + 1) // 2
    kinds = {
        "Best queries": _one_each(retrieval, order[:half]),
        "Worst queries": _one_each(retrieval, order[half:][::-1]),
    }
    return {
        kind: [_rank_sheet(retrieval, int(row), show) for row in rows]
        for kind, rows in kinds.items()
        if len(rows)
    }


def _one_each(retrieval: Retrieval, rows: np.ndarray) -> np.ndarray:
    """Return the first :data:`QUERIES` rows with distinct persons."""
    first = np.unique(retrieval.pids[retrieval.queries[rows]], return_index=True)[1]
    return rows[np.sort(first)][:QUERIES]


def _by_precision(retrieval: Retrieval) -> np.ndarray:
    matches = np.array(
        [
            (
                (retrieval.pids == retrieval.pids[q]) & (retrieval.camids != retrieval.camids[q])
            ).sum()
            for q in retrieval.queries.tolist()
        ]
    )
    rows = np.arange(len(matches))
    return np.lexsort((rows, -matches, -retrieval.average_precisions))


def _rank_sheet(retrieval: Retrieval, row: int, show: Show) -> Sheet:
    query = int(retrieval.queries[row])
    lead = Tile(show(retrieval.paths[query]), "query", "query", "the query")
    tiles = []
    for place, i in enumerate(retrieval.top[row].tolist(), 1):
        if i < 0:
            break
        hit = retrieval.pids[i] == retrieval.pids[query]
        tiles.append(
            Tile(
                show(retrieval.paths[i]),
                f"{'✓' if hit else '✗'} c{retrieval.camids[i]}",
                "right" if hit else "wrong",
                f"rank {place}, {'the same' if hit else 'another'} person",
            )
        )
    share = 100 * retrieval.average_precisions[row]
    title = f"Average precision {share:.1f} % · camera {retrieval.camids[query]}"
    return Sheet(title, tiles, lead=lead)


def noise_sheet(
    labels: np.ndarray, camids: np.ndarray, cameras: list[str], paths: list[str], show: Show
) -> Sheet | None:
    """Return a row of unassigned images, evenly spaced in the list; None if there are none."""
    members = np.flatnonzero(labels == NOISE)
    if not len(members):
        return None
    shown = members[np.unique(np.linspace(0, len(members) - 1, MEMBERS).astype(int))]
    tiles = [
        Tile(show(paths[i]), camera_label(cameras[camids[i]]), "", f"image {i}")
        for i in shown.tolist()
    ]
    return Sheet(f"In no cluster · {len(members)} images", tiles, len(members) - len(shown))
