"""Re-rank the top-K results of each query by the similarity after alignment.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification,
    IEEE TIP 31 (2022) 4803-4816, arXiv:2207.13035: the inter-similarity of a pair.

Notation: Q queries, G gallery images, K re-ranked results, C x H x W reduced map, P pairs per
batch; s_inter similarity of two maps after alignment, d distance of their features.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Any, Protocol, cast

import numpy as np
import torch
from fastreid.evaluation.query_expansion import aqe
from torch import Tensor

from unreid.checks import check_integer, check_number
from unreid.evaluation.rank import evaluate_rank
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator

logger = logging.getLogger("fastreid.unreid.pseudopair")

#: Person ids of queries and gallery, camera ids of queries and gallery.
Ids = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

#: P, and seconds between two log lines of progress.
PAIRS_AT_ONCE, LOG_SECONDS = 256, 10.0


class PairModel(Protocol):
    """Interface of a model that compares pairs of images."""

    training: bool

    def pair_maps(self, images: Tensor) -> Tensor:
        """Return reduced maps (B, C, H, W) of images (B, 3, H', W') in 0..255."""

    def pair_similarity(self, maps_i: Tensor, maps_j: Tensor) -> Tensor:
        """Return (P,) s_inter in -1..1 of maps (P, C, H, W), with j aligned to i."""

    def train(self, mode: bool = True) -> Any:
        """Set the mode; see :meth:`torch.nn.Module.train`."""


def nearest_columns(distances: np.ndarray, top_k: int) -> np.ndarray:
    """Return the columns of the ``top_k`` smallest entries of each row, ascending, ties by column.

    Args:
        distances: (Q, G) float.
        top_k: K >= 1, clipped to G.

    Returns:
        (Q, K) int64 columns.
    """
    top_k = min(check_integer("top_k", top_k, 1), distances.shape[1])
    found = np.empty((len(distances), top_k), dtype=np.int64)
    for row, values in enumerate(distances):
        limit = np.partition(values, top_k - 1)[top_k - 1]
        candidates = np.flatnonzero(values <= limit)
        order = np.argsort(values[candidates], kind="stable")[:top_k]
        found[row] = candidates[order]
    return found


def mixed_order(near: np.ndarray, similarities: np.ndarray, weight: float) -> np.ndarray:
    """Return the order of the top K of each query by (1 - w) d + w (1 - s_inter), ascending.

    Args:
        near: (Q, K) distances, ascending.
        similarities: (Q, K) s_inter of the same images.
        weight: w in 0..1; 0 keeps the order, including ties.

    Returns:
        (Q, K) int64, a permutation of 0..K-1 in each row.

    Raises:
        ValueError: The shapes differ, the weight is out of range, or a similarity is not finite.
    """
    weight = check_number("weight", weight, 0.0, 1.0)
    if near.shape != similarities.shape:
        raise ValueError(f"similarities must have shape {near.shape}, got {similarities.shape}")
    if not np.isfinite(similarities).all():
        raise ValueError("similarities must be finite, got NaN or infinity")
    mixed = (1.0 - weight) * near + weight * (1.0 - similarities)
    return np.argsort(mixed, axis=1, kind="stable")


class PairEvaluator(UnsupervisedEvaluator):
    """Evaluator that orders the top K of each query by the mixed distance.

    Images after the top K keep their ranks: the K smallest distances of a query are permuted among
    its top-K images. Scores are those after re-ranking; ``plain mAP`` and ``plain Rank-1`` are
    those before it. ROC uses the plain distances.

    Args:
        cfg: The config; all settings of ``TEST.*`` apply.
        num_query: Q.
        model: Computes the maps, in a second forward pass per batch, and compares them.
        top_k: K >= 1.
        weight: w in 0..1.
    """

    def __init__(
        self, cfg: Any, num_query: int, model: PairModel, *, top_k: int, weight: float
    ) -> None:
        super().__init__(cfg, num_query)
        self._model = model
        self._top_k = check_integer("PSEUDOPAIR.RERANK.TOP_K", top_k, 1)
        self._weight = check_number("PSEUDOPAIR.RERANK.WEIGHT", weight, 0.0, 1.0)
        self._maps: list[Tensor] = []

    def reset(self) -> None:
        """Discard features and maps."""
        super().reset()
        self._maps = []

    @torch.no_grad()
    def process(self, inputs: dict[str, Any], outputs: Tensor) -> None:
        """Store features, ids and reduced maps of a batch; maps as float16 in main memory.

        With ``TEST.FLIP`` a map is the mean of the map of the image and the re-flipped map of the
        flipped image. ``inputs`` has the flipped images, because fast-reid flips them in place.
        """
        super().process(inputs, outputs)
        images = inputs["images"]
        if self.cfg.TEST.FLIP.ENABLED:
            mirrored_back = self._model.pair_maps(images).flip(3)
            maps = (self._model.pair_maps(images.flip(3)) + mirrored_back) / 2
        else:
            maps = self._model.pair_maps(images)
        self._maps.append(maps.half().cpu())

    def evaluate(self) -> OrderedDict[str, float]:
        """Return the scores in percent by name; see the class."""
        results = super().evaluate()
        distances, ids = self._plain()
        columns = nearest_columns(distances, self._top_k)
        near = np.take_along_axis(distances, columns, 1)
        order = mixed_order(near, self._similarities(columns), self._weight)
        np.put_along_axis(distances, np.take_along_axis(columns, order, 1), near, 1)
        cmc, precisions, penalties = cast(Any, evaluate_rank(distances, *ids))
        results["plain mAP"], results["plain Rank-1"] = results["mAP"], results["Rank-1"]
        for rank in (1, 5, 10):
            results[f"Rank-{rank}"] = float(cmc[rank - 1]) * 100
        results["mAP"] = float(np.mean(precisions)) * 100
        results["mINP"] = float(np.mean(penalties)) * 100
        results["metric"] = (results["mAP"] + results["Rank-1"]) / 2
        logger.info(
            f"PSEUDOPAIR.RERANK (top {columns.shape[1]}, weight {self._weight:g}; state it with"
            f" the result): mAP {results['plain mAP']:.2f} -> {results['mAP']:.2f}, rank-1"
            f" {results['plain Rank-1']:.2f} -> {results['Rank-1']:.2f}"
        )
        self._results = results
        return OrderedDict(results)

    def _plain(self) -> tuple[np.ndarray, Ids]:
        """Return (Q, G) float32 distances under ``TEST.*``, and the ids for the scores."""
        features, pids, camids, split = self.collected()
        if len(features) != sum(len(maps) for maps in self._maps):
            raise RuntimeError(
                "PSEUDOPAIR.RERANK must be off for tracklets, whose maps are not averaged"
            )
        if self.cfg.TEST.CENTER_CAMERAS:
            features = self._centred(features, camids, split)
        query, gallery = features[:split], features[split:]
        expansion = self.cfg.TEST.AQE
        if expansion.ENABLED:
            query, gallery = aqe(query, gallery, expansion.QE_TIME, expansion.QE_K, expansion.ALPHA)
        ids = (pids[:split], pids[split:], camids[:split], camids[split:])
        return self._distances(query, gallery), ids

    @torch.no_grad()
    def _similarities(self, columns: np.ndarray) -> np.ndarray:
        """Return s_inter (Q, K) float32 of each query with the gallery images ``columns``."""
        maps = torch.cat(self._maps)
        self._maps = [maps]
        num_queries, top_k = columns.shape
        left = torch.arange(num_queries).repeat_interleave(top_k)
        right = torch.from_numpy(columns).reshape(-1) + self._num_query
        shape = " x ".join(str(size) for size in maps.shape)
        logger.info(
            f"Pair re-ranking: {num_queries:,} queries x {top_k}; maps of {shape} in float16 take"
            f" {maps.numel() * 2 / 2**20:,.0f} MiB of main memory"
        )
        found, device = torch.empty(len(left)), self.cfg.MODEL.DEVICE
        start = last_log = time.perf_counter()
        was_training = self._model.training
        self._model.train(False)
        try:
            for first in range(0, len(left), PAIRS_AT_ONCE):
                part = slice(first, first + PAIRS_AT_ONCE)
                one, other = (maps[x[part]].to(device).float() for x in (left, right))
                found[part] = self._model.pair_similarity(one, other).float().cpu()
                now = time.perf_counter()
                if now - last_log > LOG_SECONDS:
                    last_log, done = now, min(first + PAIRS_AT_ONCE, len(left))
                    eta = timedelta(seconds=int((now - start) / done * (len(left) - done)))
                    logger.info(f"Pair re-ranking: {done:,}/{len(left):,} pairs. ETA={eta}")
        finally:
            self._model.train(was_training)
        seconds = time.perf_counter() - start
        logger.info(
            f"Pair re-ranking: {len(left):,} pairs in {seconds:.1f} s,"
            f" {1000 * seconds / num_queries:.1f} ms per query"
        )
        return found.reshape(num_queries, top_k).numpy()


def build_evaluator(cfg: Any, num_query: int, model: PairModel) -> UnsupervisedEvaluator:
    """Return the evaluator of ``PSEUDOPAIR.RERANK.{ENABLED,TOP_K,WEIGHT}``."""
    rerank = cfg.PSEUDOPAIR.RERANK
    if not rerank.ENABLED:
        return UnsupervisedEvaluator(cfg, num_query)
    return PairEvaluator(cfg, num_query, model, top_k=rerank.TOP_K, weight=rerank.WEIGHT)
