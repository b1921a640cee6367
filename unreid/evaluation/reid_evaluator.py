"""Retrieval evaluator for fast-reid, with faster ranking and camera centring.

[0] Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015 (mAP, CMC).
[1] Ye et al., Deep Learning for Person Re-identification, TPAMI 2021 (mINP), arXiv 2001.04193.

Notation: Q queries, G gallery images, D channels.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.evaluation import ReidEvaluator
from fastreid.evaluation.query_expansion import aqe
from fastreid.evaluation.roc import evaluate_roc
from fastreid.utils.compute_dist import build_dist
from sklearn.metrics import roc_curve

from unreid.clustering.partition import centroids
from unreid.evaluation.rank import evaluate_features, evaluate_rank
from unreid.evaluation.rerank import jaccard_query_gallery
from unreid.graph.centering import camera_means, subtract_means

logger = logging.getLogger("fastreid.unreid.evaluation")

#: Thresholds of the false positive rate that ``TEST.ROC`` reports, as fast-reid does.
_FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)


class UnsupervisedEvaluator(ReidEvaluator):
    """Evaluator of mAP, CMC, mINP and ROC by ``TEST.{AQE,RERANK,ROC,METRIC,CENTER_CAMERAS}``.

    Nothing is compiled at run time, and nothing needs a GPU. ``TEST.CENTER_CAMERAS`` uses the
    gallery's camera ids and means; the log states it with the result.
    """

    def _compile_dependencies(self) -> None:
        """Do nothing; fast-reid would run ``make`` in site-packages and exit when it fails."""

    def process(self, inputs: dict[str, Any], outputs: torch.Tensor) -> None:
        """Store features and ids of a batch, and its tracklets if any."""
        super().process(inputs, outputs)
        if "tracklets" in inputs:
            self._predictions[-1]["tracklets"] = inputs["tracklets"].cpu()

    def collected(self) -> tuple[torch.Tensor, np.ndarray, np.ndarray, int]:
        """Return features (Q + G, D), ids and cameras (Q + G,), and Q.

        For video a row is a tracklet: the mean of its frames' unit features.
        """
        features = torch.cat([p["feats"] for p in self._predictions])
        pids = torch.cat([p["pids"] for p in self._predictions]).numpy()
        camids = torch.cat([p["camids"] for p in self._predictions]).numpy()
        if "tracklets" not in self._predictions[0]:
            return features, pids, camids, self._num_query
        tracklets = torch.cat([p["tracklets"] for p in self._predictions]).numpy()
        first = np.unique(tracklets, return_index=True)[1]
        means = centroids(F.normalize(features).numpy(), tracklets)
        num_query = int((first < self._num_query).sum())
        return torch.from_numpy(means), pids[first], camids[first], num_query

    def evaluate(self) -> OrderedDict[str, float]:
        """Return scores by name in percent; TPR is a fraction, as in fast-reid."""
        features, pids, camids, split = self.collected()
        ids = (pids[:split], pids[split:], camids[:split], camids[split:])
        if self.cfg.TEST.CENTER_CAMERAS:
            features = self._centred(features, camids, split)
        query, gallery = features[:split], features[split:]
        test = self.cfg.TEST
        if test.AQE.ENABLED:
            query, gallery = aqe(query, gallery, test.AQE.QE_TIME, test.AQE.QE_K, test.AQE.ALPHA)
        if test.RERANK.ENABLED or test.ROC.ENABLED:
            dist = self._distances(query, gallery)
            # The Market protocol returns three values.
            scores = cast(Any, evaluate_rank(dist, *ids))
        else:  # block by block: a (Q, G) matrix of MSMT17 is 3.8 GB
            scores = evaluate_features(query, gallery, *ids, metric=test.METRIC)
        cmc, average_precisions, inverse_penalties = scores
        mean_ap, mean_inp = np.mean(average_precisions), np.mean(inverse_penalties)
        results = OrderedDict((f"Rank-{r}", float(cmc[r - 1]) * 100) for r in (1, 5, 10))
        results["mAP"] = float(mean_ap) * 100
        results["mINP"] = float(mean_inp) * 100
        results["metric"] = float(mean_ap + cmc[0]) / 2 * 100
        if test.ROC.ENABLED:
            similarities, labels = evaluate_roc(dist, *ids, use_cython=False)
            fprs, tprs, _ = roc_curve(labels, similarities)
            for rate in _FALSE_POSITIVE_RATES:
                index = np.argmin(np.abs(fprs - rate))
                results[f"TPR@FPR={rate:.0e}"] = float(tprs[index])
        self._results = results
        return OrderedDict(results)

    def _centred(self, features: torch.Tensor, camids: np.ndarray, num_query: int) -> torch.Tensor:
        """Subtract the gallery mean of the same camera, or the global mean without images."""
        logger.info(
            "TEST.CENTER_CAMERAS: each camera's mean gallery feature is subtracted; state"
            " it with the result"
        )
        unit = F.normalize(features).numpy()
        cameras, numbered = np.unique(camids, return_inverse=True)
        gallery = slice(num_query, None)
        means = camera_means(
            unit[gallery], numbered[gallery], len(cameras), self.cfg.UNSUP.CENTER_SHRINKAGE
        )
        return torch.from_numpy(subtract_means(unit, numbered, means))

    def _distances(self, query: torch.Tensor, gallery: torch.Tensor) -> np.ndarray:
        """Return (Q, G) float32 distances, mixed with the Jaccard distance for ``TEST.RERANK``."""
        test = self.cfg.TEST
        dist = build_dist(query, gallery, test.METRIC)
        if test.RERANK.ENABLED:
            weight = test.RERANK.LAMBDA
            if test.METRIC == "cosine":
                query, gallery = F.normalize(query), F.normalize(gallery)
            jaccard = jaccard_query_gallery(
                query.numpy(), gallery.numpy(), test.RERANK.K1, test.RERANK.K2, test.METRIC
            )
            dist = jaccard * (1 - weight) + dist * weight
        return np.asarray(dist, dtype=np.float32)
