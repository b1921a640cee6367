"""Top-k retrieval: the most similar gallery images of each query, with excluded images.

Notation: N gallery images, Q queries, D channels, M cameras.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from unreid.checks import check_features, check_integer
from unreid.data.folder import FolderItem
from unreid.evaluation.rank import evaluate_features
from unreid.graph.centering import camera_means, subtract_means
from unreid.inference.gallery import Entry, Gallery

logger = logging.getLogger("fastreid.unreid.search")


@dataclass(frozen=True)
class Hit:
    """One retrieved gallery image.

    Attributes:
        rank: From 1.
        index: Position in the gallery.
        similarity: Cosine, -1..1.
        correct: Whether it shows the query's person; None if an id is unknown or the image does
            not count.
        own_camera: Whether it shows the query's person in the query's camera. By the protocol of
            Market-1501 such an image does not count if there are several cameras.
    """

    rank: int
    index: int
    similarity: float
    correct: bool | None
    own_camera: bool = False


def center(
    query: np.ndarray,
    query_cameras: Sequence[str],
    gallery: np.ndarray,
    gallery_cameras: Sequence[str],
    shrinkage: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the mean of the gallery's features of the same camera (camera centring).

    For a query of a camera that is not in the gallery, the mean of all features is subtracted.

    Args:
        query: (Q, D) float32 unit rows.
        query_cameras: Q camera names.
        gallery: (N, D) float32 unit rows, N >= 1.
        gallery_cameras: N camera names.
        shrinkage: See :func:`unreid.graph.centering.camera_means`; > 0.

    Returns:
        (Q, D) and (N, D) float32 unit rows.
    """
    cameras, numbers = np.unique([*gallery_cameras, *query_cameras], return_inverse=True)
    num = len(gallery)
    means = camera_means(gallery, numbers[:num], len(cameras), shrinkage)
    return (
        subtract_means(query, numbers[num:], means),
        subtract_means(gallery, numbers[:num], means),
    )


def excluded_images(
    queries: Sequence[FolderItem], gallery: Gallery, *, other_cameras: bool
) -> list[np.ndarray]:
    """Return for each query the positions of the gallery images to exclude.

    The file of the query itself is excluded, and with ``other_cameras`` all images of the query's
    camera.
    """
    by_size: dict[int, list[int]] = {}
    for index, entry in enumerate(gallery.entries):
        by_size.setdefault(entry.size, []).append(index)
    paths = gallery.paths
    cameras = np.array([entry.camera for entry in gallery.entries], dtype=object)
    result = []
    for item in queries:
        # Compare paths of files with equal size only; realpath is slow.
        same = [
            i
            for i in by_size.get(os.path.getsize(item.path), ())
            if os.path.realpath(paths[i]) == os.path.realpath(item.path)
        ]
        own = np.array(same, dtype=np.int64)
        if other_cameras:
            own = np.union1d(own, np.flatnonzero(cameras == item.camera))
        result.append(own)
    return result


def nearest_images(
    query: np.ndarray, gallery: np.ndarray, top: int, excluded: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the nearest gallery images of each query by exact inner-product search.

    Args:
        query: (Q, D) float32 unit rows.
        gallery: (N, D) float32 unit rows.
        top: Images per query, >= 1.
        excluded: Rows of the gallery to exclude, for each query.

    Returns:
        For each query indices (K,) int64 and similarities (K,) float32, decreasing, ties by index
        among those found; K = min(top, N - excluded).
    """
    check_features("query", query)
    check_features("gallery", gallery)
    top = check_integer("top", top, 1)
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery, dtype=np.float32))
    groups: dict[bytes, list[int]] = {}
    for i, rows in enumerate(excluded):
        groups.setdefault(np.asarray(rows, dtype=np.int64).tobytes(), []).append(i)
    found: list[tuple[np.ndarray, np.ndarray]] = [None] * len(query)  # type: ignore[list-item]
    for key, members in groups.items():
        rows = np.frombuffer(key, dtype=np.int64)
        width = min(top, len(gallery) - len(rows))
        if width < 1:
            scores, indices = (
                np.zeros((len(members), 0), np.float32),
                np.zeros((len(members), 0), np.int64),
            )
        else:
            inside = faiss.IDSelectorNot(faiss.IDSelectorBatch(rows)) if len(rows) else None
            scores, indices = index.search(
                np.ascontiguousarray(query[members]),
                width,
                params=faiss.SearchParameters(sel=inside) if inside else None,  # type: ignore[call-arg]
            )
        for member, score, row in zip(members, scores, indices):
            order = np.lexsort((row, -score))
            found[member] = row[order], score[order]
    return found


def rank(
    queries: Sequence[FolderItem],
    query: np.ndarray,
    gallery: Gallery,
    top: int,
    *,
    other_cameras: bool = False,
    shrinkage: float | None = None,
) -> list[list[Hit]]:
    """Return the top-k retrieval results of each query.

    Args:
        queries: Q queries, with camera and id if known.
        query: (Q, D) float32 unit rows.
        gallery: Not empty.
        top: Results per query, >= 1.
        other_cameras: Exclude images of the query's camera.
        shrinkage: Camera centring (see :func:`center`); None turns it off.
    """
    own, features = query, gallery.features
    if shrinkage is not None:
        own, features = center(
            query,
            [q.camera for q in queries],
            features,
            [e.camera for e in gallery.entries],
            shrinkage,
        )
    excluded = excluded_images(queries, gallery, other_cameras=other_cameras)
    found = nearest_images(own, features, top, excluded)
    several = len({entry.camera for entry in gallery.entries}) > 1
    return [
        [
            _hit(n, int(i), float(s), item, gallery.entries[i], several)
            for n, (i, s) in enumerate(zip(indices, scores), 1)
        ]
        for item, (indices, scores) in zip(queries, found)
    ]


def _hit(
    number: int, index: int, similarity: float, query: FolderItem, entry: Entry, several: bool
) -> Hit:
    correct = None if query.pid is None or entry.pid is None else query.pid == entry.pid
    own = several and correct is True and query.camera == entry.camera
    return Hit(number, index, similarity, None if own else correct, own)


def scores(
    queries: Sequence[FolderItem],
    query: np.ndarray,
    gallery: Gallery,
    *,
    other_cameras: bool = False,
    shrinkage: float | None = None,
) -> dict[str, float] | None:
    """Return mAP and CMC in percent with the exclusions of :func:`rank`.

    Images of the query's person in the query's camera do not count. Queries without another image
    of their person are excluded (protocol of Market-1501). With ``other_cameras``, all images
    of the query's camera are excluded.

    Returns:
        Score name -> value; None if an id or a query's camera is unknown, or no query can be
        scored.
    """
    if any(not item.camera for item in queries):
        return None
    pids = [item.pid for item in queries] + [entry.pid for entry in gallery.entries]
    if any(pid is None for pid in pids):
        return None
    cameras = [item.camera for item in queries] + [entry.camera for entry in gallery.entries]
    own, features = query, gallery.features
    if shrinkage is not None:
        own, features = center(
            query, cameras[: len(queries)], features, cameras[len(queries) :], shrinkage
        )
    ids, numbers = (
        np.unique(np.array(values, dtype=str), return_inverse=True)[1] for values in (pids, cameras)
    )
    num = len(queries)
    groups = [(np.arange(num), np.arange(num, len(ids)))]
    if other_cameras:
        groups = [
            (np.flatnonzero(numbers[:num] == c), num + np.flatnonzero(numbers[num:] != c))
            for c in np.unique(numbers[:num])
        ]
    precisions, firsts = [], []
    for asked, among in groups:
        try:
            cmc, found, _ = evaluate_features(
                own[asked],
                features[among - num],
                ids[asked],
                ids[among],
                numbers[asked],
                numbers[among],
            )
        except ValueError:  # none of these queries has a match in another camera
            continue
        precisions += list(found)
        firsts += [[float(cmc[min(r, len(cmc)) - 1]) for r in (1, 5, 10)]] * len(found)
    if not precisions:
        return None
    return {
        "mAP": float(np.mean(precisions)) * 100,
        **{f"Rank-{r}": 100 * v for r, v in zip((1, 5, 10), np.mean(firsts, axis=0).tolist())},
        "queries": len(precisions),
    }


def check_cameras(queries: Sequence[FolderItem], gallery: Gallery, *, other_cameras: bool) -> None:
    """Check that cameras are known if only other cameras are searched.

    Logs a warning for queries of cameras that are not in the gallery; no image is excluded for
    them.

    Raises:
        ValueError: A query's camera is unknown, or gallery and queries are of one camera.
    """
    if not other_cameras:
        return
    unknown = [query.path for query in queries if not query.camera]
    if unknown:
        raise ValueError(
            f"--other-cameras: the camera of {unknown[0]} is unknown; give its"
            " source: --camera-pattern, --csv with --query-csv, or --camera"
            " subfolder"
        )
    if {entry.camera for entry in gallery.entries} <= {query.camera for query in queries} and len(
        {entry.camera for entry in gallery.entries}
    ) == 1:
        raise ValueError(
            f"--other-cameras: the whole gallery is of camera {gallery.entries[0].camera!r}, the"
            " camera of a query; give the source of cameras: --camera-pattern, --csv, or --camera"
            " subfolder"
        )
    known = sorted({entry.camera for entry in gallery.entries})
    absent = [query for query in queries if query.camera not in known]
    if absent:
        logger.warning(
            f"--other-cameras: the gallery has cameras {', '.join(known[:5])}, but not"
            f" {absent[0].camera!r}, the camera of {absent[0].path} ({len(absent)} queries in"
            " total): no image is excluded for it; --camera-pattern must give equal names for"
            " both"
        )
