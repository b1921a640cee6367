"""Retrieval results and features of a run's model, for the report.

Features come from the start weights and from the checkpoint of a run. Large sets are sampled, so
that a report takes minutes; the page states the sample sizes.

[0] Zheng et al., Scalable person re-identification: a benchmark (Market-1501), ICCV 2015.

Notation: N images, n in the sample, D channels, Q queries, V queries with a match, G gallery
images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.evaluation.evaluator import inference_context
from fastreid.utils.env import seed_all_rng
from torch import nn

from unreid.contracts import ReIDModel
from unreid.data.loader import Batches, build_test_loader, consecutive_batches
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.engine.extract import extract, progress
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator

#: Gallery images kept for each query.
TOP = 10
#: Largest rank of the CMC.
MAX_RANK = 50
_BLOCK = 256


@dataclass(frozen=True)
class Limits:
    """Sample sizes.

    Attributes:
        train: Maximum number of training images, for neighbours and embedding.
        queries: Maximum number of query images.
        gallery: Maximum number of gallery images.
    """

    train: int = 2000
    queries: int = 500
    gallery: int = 4000

    @classmethod
    def of_device(cls, device: str) -> Limits:
        """Return the limits for a device; they are larger for a GPU."""
        return cls(8000, 3000, 20_000) if device.startswith("cuda") else cls()


@dataclass(frozen=True)
class Retrieval:
    """Retrieval results of one test set by the final model.

    Attributes:
        name: Test set.
        paths: Q + G files, queries first.
        pids: (Q + G,) int64 identities.
        camids: (Q + G,) int64 cameras.
        queries: (V,) positions of the queries that have a match.
        top: (V, 10) positions in ``paths`` of the nearest gallery images, nearest first; -1 pads
            a shorter list.
        average_precisions: (V,) in 0..1.
        cmc: (50,) in 0..1.
        sample_sizes: (queries used, all queries, gallery images used, all gallery images).
        remark: Test settings that these rankings do not use, or an empty text.
    """

    name: str
    paths: list[str]
    pids: np.ndarray
    camids: np.ndarray
    queries: np.ndarray
    top: np.ndarray
    average_precisions: np.ndarray
    cmc: np.ndarray
    sample_sizes: tuple[int, int, int, int]
    remark: str

    @property
    def complete(self) -> bool:
        """Whether the whole test set was used."""
        queries, all_queries, gallery, whole = self.sample_sizes
        return queries == all_queries and gallery == whole


@contextmanager
def quiet() -> Iterator[None]:
    """Set the level of fast-reid's logger to ERROR while models are built and loaded."""
    log = logging.getLogger("fastreid")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def sample(num: int, limit: int, seed: int) -> np.ndarray:
    """Return ``limit`` random indices of 0..num-1, ascending; all if num <= limit."""
    if num <= limit:
        return np.arange(num)
    return np.sort(np.random.default_rng([seed, 7]).choice(num, limit, replace=False))


def load_model(cfg: Any, weights: str) -> nn.Module:
    """Return the run's model with ``weights``; '' keeps the start weights."""
    with quiet():
        seed_all_rng(cfg.UNSUP.SEED)
        model = UnsupervisedTrainer.build_model(cfg)
        AtomicCheckpointer(model).load(weights)
    return model


def features_of(
    cfg: Any, model: nn.Module, images: UnlabelledImages, chosen: np.ndarray
) -> np.ndarray:
    """Return (n, D) unit features of the chosen training images, as in the label step."""
    return extract(cfg, model, images.subset(chosen)).features


class _FeatureCollector(UnsupervisedEvaluator):
    """Evaluator that returns the collected features instead of scores."""

    def centred(self) -> tuple[torch.Tensor, np.ndarray, np.ndarray, int]:
        """Return features, identities, cameras and Q, after optional camera centring."""
        features, pids, camids, num_query = self.collected()
        if self.cfg.TEST.CENTER_CAMERAS:
            features = self._centred(features, camids, num_query)
        return features, pids, camids, num_query


def retrieve(cfg: Any, model: nn.Module, limits: Limits) -> Retrieval:
    """Return the retrieval results of the first set in ``DATASETS.TESTS``, by protocol [0].

    If the gallery is larger than the limit, images of the persons in the sampled queries are chosen
    first. Random other images are added up to the limit.

    Raises:
        KeyError, FileNotFoundError: See :func:`unreid.data.loader.build_test_loader`.
        ValueError: See the same function; also if no sampled query has a match.
    """
    name = cfg.DATASETS.TESTS[0]
    loader, num_query = build_test_loader(cfg, name)
    dataset: Any = loader.dataset
    pids = dataset.fields["targets"]
    queries = sample(num_query, limits.queries, cfg.UNSUP.SEED)
    gallery = _gallery(pids, num_query, queries, limits.gallery, cfg.UNSUP.SEED)
    chosen = np.concatenate([queries, gallery])
    evaluator = _FeatureCollector(cfg, len(queries), None)
    evaluator.reset()
    part = loader.with_batches(consecutive_batches(chosen.tolist(), cfg.TEST.IMS_PER_BATCH))
    with quiet():
        _run(cfg, model, part, evaluator)
        features, ids, camids, split = evaluator.centred()
    paths = [dataset.paths[i] for i in chosen]
    if "tracklets" in dataset.fields:  # the first frame represents a tracklet
        of = dataset.fields["tracklets"][chosen]
        paths = [paths[i] for i in np.unique(of, return_index=True)[1]]
    found, top, precisions, cmc = rank(features, ids, camids, split, cfg.TEST.METRIC)
    sample_sizes = (len(queries), num_query, len(gallery), len(pids) - num_query)
    return Retrieval(
        name, paths, ids, camids, found, top, precisions, cmc, sample_sizes, _left_out(cfg, model)
    )


def _left_out(cfg: Any, model: nn.Module) -> str:
    named = [
        name
        for name, on in (
            ("TEST.AQE", cfg.TEST.AQE.ENABLED),
            ("TEST.RERANK", cfg.TEST.RERANK.ENABLED),
            (
                "the model's own evaluator",
                isinstance(model, ReIDModel)
                and type(model.build_evaluator(cfg, 0)) is not UnsupervisedEvaluator,
            ),
        )
        if on
    ]
    return f"Ranked by features alone, without {' and '.join(named)}." if named else ""


def _gallery(
    pids: np.ndarray, num_query: int, queries: np.ndarray, limit: int, seed: int
) -> np.ndarray:
    gallery = np.arange(num_query, len(pids))
    if len(gallery) <= limit:
        return gallery
    order = np.random.default_rng([seed, 8]).permutation(gallery)
    wanted = np.isin(pids[order], pids[queries])
    return np.sort(np.concatenate([order[wanted], order[~wanted]])[:limit])


def _run(cfg: Any, model: nn.Module, loader: Batches, evaluator: _FeatureCollector) -> None:
    with inference_context(model), torch.inference_mode():
        for batch in progress(loader, "test features"):
            outputs = model(batch)
            if cfg.TEST.FLIP.ENABLED:
                outputs = (outputs + model({**batch, "images": batch["images"].flip(3)})) / 2
            evaluator.process(batch, outputs)


def rank(
    features: torch.Tensor,
    pids: np.ndarray,
    camids: np.ndarray,
    num_query: int,
    metric: str = "cosine",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank the gallery for each query, without images of the same person and camera [0].

    Args:
        features: (Q + G, D) floating, queries first.
        pids: (Q + G,) integer.
        camids: (Q + G,) integer.
        num_query: Q.
        metric: ``"cosine"`` or ``"euclidean"``.

    Returns:
        Queries with a match (V,); their 10 nearest gallery images (V, 10) as rows of
        ``features``, padded by -1; average precisions (V,); CMC (50,).

    Raises:
        ValueError: No query has a match.
    """
    features = features.float()
    if metric == "cosine":
        features = F.normalize(features)
    gallery = features[num_query:]
    g_pids, g_camids = pids[num_query:], camids[num_query:]
    kept, tops, precisions, firsts = [], [], [], []
    for start in range(0, num_query, _BLOCK):
        stop = min(start + _BLOCK, num_query)
        block = features[start:stop]
        distances = 1 - block @ gallery.T if metric == "cosine" else torch.cdist(block, gallery)
        orders = torch.argsort(distances, dim=1, stable=True).numpy()
        for q, order in zip(range(start, stop), orders):
            same = g_pids[order] == pids[q]
            order = order[~(same & (g_camids[order] == camids[q]))]
            hits = np.flatnonzero(g_pids[order] == pids[q])
            if not len(hits):
                continue
            kept.append(q)
            tops.append(
                np.pad(order[:TOP] + num_query, (0, max(0, TOP - len(order))), constant_values=-1)
            )
            precisions.append(float(((np.arange(len(hits)) + 1) / (hits + 1)).mean()))
            firsts.append(int(hits[0]))
    if not kept:
        raise ValueError("no query has a match in the gallery under another camera")
    found = np.bincount(np.minimum(firsts, MAX_RANK), minlength=MAX_RANK + 1)[:MAX_RANK]
    return np.array(kept), np.array(tops), np.array(precisions), np.cumsum(found) / len(kept)
