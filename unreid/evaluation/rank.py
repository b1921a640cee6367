"""CMC, average precision and inverse negative penalty without sorting the gallery.

The rank of a match is the number of kept gallery images that are closer, or as close and earlier
in the gallery. All three metrics depend on these ranks only.

[0] Zheng et al., Scalable person re-identification: a benchmark (Market-1501), ICCV 2015.
[1] Ye et al., Deep learning for person re-identification: a survey and outlook (mINP), 2020,
    arXiv:2001.04193.
[2] Li et al., DeepReID (CUHK03, single gallery shot), CVPR 2014.

Notation: Q queries, G gallery images, D channels, R matches, V queries that have a match.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from unreid.checks import check_choice, check_features, check_integer
from unreid.kernels import kernel, num_threads, ranking_reference, zero_copy

#: Random single-shot galleries averaged by the CUHK03 protocol [2].
SHOTS = 10
METRICS = ("cosine", "euclidean")


def _ids(name: str, values: ArrayLike, num: int) -> np.ndarray:
    """Return ``values`` as (num,) int64."""
    array = np.asarray(values)
    if array.shape != (num,):
        raise ValueError(f"{name} must have shape ({num},), got {array.shape}")
    return array.astype(np.int64)


class _Truth:
    """Matches and removed gallery images of each query.

    A gallery image of the query's identity is removed if its camera is the query's; otherwise it
    is a match [0].
    """

    def __init__(
        self, q_pids: np.ndarray, g_pids: np.ndarray, q_camids: np.ndarray, g_camids: np.ndarray
    ) -> None:
        by_pid = np.argsort(g_pids, kind="stable")
        sorted_pids = g_pids[by_pid]
        starts = np.searchsorted(sorted_pids, q_pids, "left")
        counts = np.searchsorted(sorted_pids, q_pids, "right") - starts
        queries = np.repeat(np.arange(len(q_pids)), counts)
        within = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
        same_pid = by_pid[np.repeat(starts, counts) + within]
        gone = g_camids[same_pid] == q_camids[queries]
        self.matches, self.match_ends = self._lists(same_pid, queries, ~gone, len(q_pids))
        self.removed, self.removed_ends = self._lists(same_pid, queries, gone, len(q_pids))
        if not len(self.matches):
            raise ValueError("no query identity appears in the gallery under another camera")

    @staticmethod
    def _lists(
        same_pid: np.ndarray, queries: np.ndarray, kept: np.ndarray, num: int
    ) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(queries[kept], minlength=num)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return np.ascontiguousarray(same_pid[kept], dtype=np.int64), ends

    def ranks(self, distances: np.ndarray, start: int) -> np.ndarray:
        """Return ranks of the matches of queries start .. start + len(distances)."""
        if np.isnan(distances.min(initial=np.inf)):
            raise ValueError("distmat must not contain NaN")
        stop = start + len(distances)
        mine, gone = self.match_ends[start : stop + 1], self.removed_ends[start : stop + 1]
        return (kernel("ranking") or ranking_reference).match_ranks(
            distances,
            self.matches[mine[0] : mine[-1]],
            mine - mine[0],
            self.removed[gone[0] : gone[-1]],
            gone - gone[0],
            num_threads(),
        )


def _scores(
    ranks: np.ndarray, ends: np.ndarray, max_rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return CMC (max_rank,), AP (V,) and INP (V,), float32, from the ranks (R,) of all matches."""
    counts = np.diff(ends)
    queries = np.repeat(np.arange(len(counts)), counts)
    ranks = ranks[np.lexsort((ranks, queries))]
    found = np.arange(len(ranks)) - np.repeat(ends[:-1], counts) + 1
    valid = counts > 0
    firsts, lasts = ends[:-1][valid], ends[1:][valid] - 1
    precision = np.add.reduceat(found / (ranks + 1.0), firsts) / counts[valid]
    penalty = counts[valid] / (ranks[lasts] + 1.0)
    hits = np.bincount(np.minimum(ranks[firsts], max_rank), minlength=max_rank + 1)[:max_rank]
    cmc = np.cumsum(hits) / valid.sum()
    return cmc.astype(np.float32), precision.astype(np.float32), penalty.astype(np.float32)


def _single_shot_cmc(
    distances: np.ndarray,
    truth: _Truth,
    g_pids: np.ndarray,
    max_rank: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return CMC over galleries of one random kept image per identity, ``SHOTS`` times [2]."""
    cmc = np.zeros(max_rank)
    valid = np.flatnonzero(np.diff(truth.match_ends))
    for q in valid:
        kept = np.ones(len(g_pids), dtype=bool)
        kept[truth.removed[truth.removed_ends[q] : truth.removed_ends[q + 1]]] = False
        pool = np.flatnonzero(kept)
        first = truth.matches[truth.match_ends[q]]
        for _ in range(SHOTS):
            shuffled = generator.permutation(pool)
            pids, where = np.unique(g_pids[shuffled], return_index=True)
            drawn = shuffled[where]
            match = drawn[np.searchsorted(pids, g_pids[first])]
            row, own = distances[q, drawn], distances[q, match]
            rank = int(((row < own) | ((row == own) & (drawn < match))).sum())
            cmc[rank:] += 1.0
    return (cmc / (SHOTS * len(valid))).astype(np.float32)


def evaluate_rank(
    distmat: ArrayLike,
    q_pids: ArrayLike,
    g_pids: ArrayLike,
    q_camids: ArrayLike,
    g_camids: ArrayLike,
    max_rank: int = 50,
    use_metric_cuhk03: bool = False,
    use_cython: bool = True,
    generator: np.random.Generator | None = None,
) -> tuple[Any, ...]:
    """Return CMC, AP and INP; drop-in for ``fastreid.evaluation.rank.evaluate_rank``.

    Args:
        distmat: (Q, G) distances; compared in float32, ties by gallery index.
        q_pids: (Q,) person ids of the queries.
        g_pids: (G,) person ids of the gallery.
        q_camids: (Q,) camera ids of the queries.
        g_camids: (G,) camera ids of the gallery.
        max_rank: Length of the CMC, >= 1.
        use_metric_cuhk03: Use the single-gallery-shot protocol [2], without INP.
        use_cython: Not used; kept for compatibility with fast-reid.
        generator: Samples the single shots of [2] (None: seed 0).

    Returns:
        Market protocol: cmc (max_rank,), AP (V,) and INP (V,), float32, over the V queries that
        have a match. CUHK03 protocol: cmc and mAP. Unlike fast-reid, the CMC always has
        ``max_rank`` entries and keeps its last value beyond the gallery's size.

    Raises:
        ValueError: Inconsistent shapes, NaN, or no query with a match.
    """
    distances = np.ascontiguousarray(distmat, dtype=np.float32)
    if distances.ndim != 2:
        raise ValueError(f"distmat must have shape (Q, G), got {distances.shape}")
    max_rank = check_integer("max_rank", max_rank, 1)
    num_q, num_g = distances.shape
    g_ids = _ids("g_pids", g_pids, num_g)
    truth = _Truth(
        _ids("q_pids", q_pids, num_q),
        g_ids,
        _ids("q_camids", q_camids, num_q),
        _ids("g_camids", g_camids, num_g),
    )
    cmc, precision, penalty = _scores(truth.ranks(distances, 0), truth.match_ends, max_rank)
    if not use_metric_cuhk03:
        return cmc, precision, penalty
    generator = generator or np.random.default_rng(0)
    cmc = _single_shot_cmc(distances, truth, g_ids, max_rank, generator)
    return cmc, float(precision.mean(dtype=np.float64))


def feature_distances(query: torch.Tensor, gallery: torch.Tensor, metric: str) -> np.ndarray:
    """Return fast-reid's distances (B, G) float32: 1 - cosine, or squared Euclidean."""
    if metric == "cosine":
        normalise = torch.nn.functional.normalize
        return (normalise(query, dim=1) @ normalise(gallery, dim=1).T).neg_().add_(1.0).numpy()
    product = query @ gallery.T
    lengths = query.square().sum(1, keepdim=True), gallery.square().sum(1)
    return product.mul_(-2.0).add_(lengths[0]).add_(lengths[1]).numpy()


def evaluate_features(
    query_features: Any,
    gallery_features: Any,
    q_pids: ArrayLike,
    g_pids: ArrayLike,
    q_camids: ArrayLike,
    g_camids: ArrayLike,
    metric: str = "cosine",
    max_rank: int = 50,
    block_size: int = 512,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return CMC, AP and INP from features in blocks of queries, without a (Q, G) matrix.

    Args:
        query_features: (Q, D) float array or tensor, rows of any norm.
        gallery_features: (G, D) float array or tensor, rows of any norm.
        q_pids: See :func:`evaluate_rank`.
        g_pids: See :func:`evaluate_rank`.
        q_camids: See :func:`evaluate_rank`.
        g_camids: See :func:`evaluate_rank`.
        metric: "cosine" or "euclidean", see ``TEST.METRIC`` of fast-reid.
        max_rank: See :func:`evaluate_rank`.
        block_size: Queries per block, >= 1.

    Returns:
        cmc (max_rank,), AP (V,), INP (V,), float32.
    """
    check_features("query_features", query_features, unit=False)
    check_features("gallery_features", gallery_features, unit=False)
    check_choice("metric", metric, METRICS)
    max_rank = check_integer("max_rank", max_rank, 1)
    block_size = check_integer("block_size", block_size, 1)
    query, gallery = (
        (f.detach() if isinstance(f, torch.Tensor) else zero_copy(f)).to("cpu", torch.float32)
        for f in (query_features, gallery_features)
    )
    truth = _Truth(
        _ids("q_pids", q_pids, len(query)),
        _ids("g_pids", g_pids, len(gallery)),
        _ids("q_camids", q_camids, len(query)),
        _ids("g_camids", g_camids, len(gallery)),
    )
    ranks = [
        truth.ranks(feature_distances(query[i : i + block_size], gallery, metric), i)
        for i in range(0, len(query), block_size)
    ]
    return _scores(np.concatenate(ranks), truth.match_ends, max_rank)
