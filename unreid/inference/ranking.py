"""For each query the most similar pictures of a gallery, with what must not be found left out.

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
    """One answer.

    Attributes:
        rank: From 1.
        index: Which of the gallery.
        similarity: Cosine, -1..1.
        correct: Whether it shows the query's person; None where an id is not known, and for an
            answer that does not count.
        own_camera: Whether it shows the query's person in the query's own camera. By
            Market-1501's protocol such an answer does not count where there are several cameras.
    """

    rank: int
    index: int
    similarity: float
    correct: bool | None
    own_camera: bool = False


def center(
    query: np.ndarray, query_cameras: Sequence[str], gallery: np.ndarray,
    gallery_cameras: Sequence[str], shrinkage: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Both with the mean of the gallery's images of the same camera taken out.

    A query of a camera that the gallery does not have loses the mean of all.

    Args:
        query, gallery: (Q, D), (N, D) float32 unit rows, N >= 1.
        query_cameras, gallery_cameras: Names.
        shrinkage: See :func:`unreid.graph.centering.camera_means`; > 0.

    Returns:
        (Q, D) and (N, D) float32 unit rows.
    """
    cameras, numbers = np.unique([*gallery_cameras, *query_cameras], return_inverse=True)
    num = len(gallery)
    means = camera_means(gallery, numbers[:num], len(cameras), shrinkage)
    return (subtract_means(query, numbers[num:], means),
            subtract_means(gallery, numbers[:num], means))


def left_out(
    queries: Sequence[FolderItem], gallery: Gallery, *, other_cameras: bool
) -> list[np.ndarray]:
    """For each query the images of the gallery that are no answers to it.

    These are the query itself, where its file is in the gallery, and with ``other_cameras`` all
    that the query's camera has taken.
    """
    by_size: dict[int, list[int]] = {}
    for index, entry in enumerate(gallery.entries):
        by_size.setdefault(entry.size, []).append(index)
    paths = gallery.paths
    cameras = np.array([entry.camera for entry in gallery.entries], dtype=object)
    result = []
    for item in queries:
        # One file has one size: few are left to be looked up, of however many.
        same = [i for i in by_size.get(os.path.getsize(item.path), ())
                if os.path.realpath(paths[i]) == os.path.realpath(item.path)]
        own = np.array(same, dtype=np.int64)
        if other_cameras:
            own = np.union1d(own, np.flatnonzero(cameras == item.camera))
        result.append(own)
    return result


def nearest_images(
    query: np.ndarray, gallery: np.ndarray, top: int, excluded: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Exact search by inner product.

    Args:
        query, gallery: (Q, D), (N, D) float32 unit rows.
        top: Answers wanted, >= 1.
        excluded: For each query the rows of the gallery that are none.

    Returns:
        For each query indices (K,) int64 and similarities (K,) float32, falling, ties by index
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
            scores, indices = np.zeros((len(members), 0), np.float32), np.zeros(
                (len(members), 0), np.int64)
        else:
            inside = faiss.IDSelectorNot(faiss.IDSelectorBatch(rows)) if len(rows) else None
            scores, indices = index.search(
                np.ascontiguousarray(query[members]), width,
                params=faiss.SearchParameters(sel=inside) if inside else None,  # type: ignore[call-arg]
            )
        for member, score, row in zip(members, scores, indices):
            order = np.lexsort((row, -score))
            found[member] = row[order], score[order]
    return found


def rank(
    queries: Sequence[FolderItem], query: np.ndarray, gallery: Gallery, top: int, *,
    other_cameras: bool = False, shrinkage: float | None = None,
) -> list[list[Hit]]:
    """The answers to each query.

    Args:
        queries: Q of them, with camera and id where they are known.
        query: (Q, D) float32 unit rows.
        gallery: Not empty.
        top: Answers wanted, >= 1.
        other_cameras: Leave out what the query's own camera has taken.
        shrinkage: Centre cameras (see :func:`center`); None does not.
    """
    own, features = query, gallery.features
    if shrinkage is not None:
        own, features = center(query, [q.camera for q in queries], features,
                               [e.camera for e in gallery.entries], shrinkage)
    excluded = left_out(queries, gallery, other_cameras=other_cameras)
    found = nearest_images(own, features, top, excluded)
    several = len({entry.camera for entry in gallery.entries}) > 1
    return [
        [_hit(n, int(i), float(s), item, gallery.entries[i], several)
         for n, (i, s) in enumerate(zip(indices, scores), 1)]
        for item, (indices, scores) in zip(queries, found)
    ]


def _hit(
    number: int, index: int, similarity: float, query: FolderItem, entry: Entry, several: bool
) -> Hit:
    correct = None if query.pid is None or entry.pid is None else query.pid == entry.pid
    own = several and correct is True and query.camera == entry.camera
    return Hit(number, index, similarity, None if own else correct, own)


def scores(
    queries: Sequence[FolderItem], query: np.ndarray, gallery: Gallery, *,
    other_cameras: bool = False, shrinkage: float | None = None,
) -> dict[str, float] | None:
    """Return mAP and CMC in percent by the rule of :func:`rank`.

    The query's person in the query's own camera does not count, and queries without any other
    image of their person are left out (Market-1501's protocol); with ``other_cameras`` nothing of
    the query's own camera is among the answers.

    Returns:
        None where an id or the camera of a query is not known, or no query can be scored.
    """
    if any(not item.camera for item in queries):
        return None
    pids = [item.pid for item in queries] + [entry.pid for entry in gallery.entries]
    if any(pid is None for pid in pids):
        return None
    cameras = [item.camera for item in queries] + [entry.camera for entry in gallery.entries]
    own, features = query, gallery.features
    if shrinkage is not None:
        own, features = center(query, cameras[: len(queries)], features, cameras[len(queries):],
                               shrinkage)
    ids, numbers = (np.unique(np.array(values, dtype=str), return_inverse=True)[1]
                    for values in (pids, cameras))
    num = len(queries)
    groups = [(np.arange(num), np.arange(num, len(ids)))]
    if other_cameras:
        groups = [(np.flatnonzero(numbers[:num] == c), num + np.flatnonzero(numbers[num:] != c))
                  for c in np.unique(numbers[:num])]
    precisions, firsts = [], []
    for asked, among in groups:
        try:
            cmc, found, _ = evaluate_features(own[asked], features[among - num], ids[asked],
                                              ids[among], numbers[asked], numbers[among])
        except ValueError:  # none of these queries has an answer in another camera
            continue
        precisions += list(found)
        firsts += [[float(cmc[min(r, len(cmc)) - 1]) for r in (1, 5, 10)]] * len(found)
    if not precisions:
        return None
    return {"mAP": float(np.mean(precisions)) * 100,
            **{f"Rank-{r}": 100 * v for r, v in zip((1, 5, 10), np.mean(firsts, axis=0).tolist())},
            "queries": len(precisions)}


def check_cameras(
    queries: Sequence[FolderItem], gallery: Gallery, *, other_cameras: bool
) -> None:
    """Refuse to look in other cameras where cameras are not known.

    Logs a query of a camera that the gallery does not have: nothing is left out for it.

    Raises:
        ValueError: a query of unknown camera, or a gallery of one camera that a query is of too.
    """
    if not other_cameras:
        return
    unknown = [query.path for query in queries if not query.camera]
    if unknown:
        raise ValueError(f"--other-cameras: the camera of {unknown[0]} is not known; say where it"
                         " is written: --camera-pattern, --csv with --query-csv, or --camera"
                         " subfolder")
    if {entry.camera for entry in gallery.entries} <= {query.camera for query in queries} and len(
            {entry.camera for entry in gallery.entries}) == 1:
        raise ValueError(
            f"--other-cameras: all of the gallery is of camera {gallery.entries[0].camera!r}, that"
            " of a query; say where cameras are written: --camera-pattern, --csv, or --camera"
            " subfolder")
    known = sorted({entry.camera for entry in gallery.entries})
    strange = [query for query in queries if query.camera not in known]
    if strange:
        logger.warning(
            f"--other-cameras: the gallery has cameras {', '.join(known[:5])}, and none"
            f" {strange[0].camera!r}, the camera of {strange[0].path} ({len(strange)} queries in"
            " all): nothing is left out for it; --camera-pattern must read both alike")
