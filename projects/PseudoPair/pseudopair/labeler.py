"""The label step: pairs from neighbours, and communities of the graph of pairs.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035

Notation: N images, k neighbours, M pairs; beta threshold of the similarity.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pseudopair.config import first_pair_epoch
from unreid.clustering.map_equation import map_equation
from unreid.contracts import Labeler
from unreid.graph.pairs import expected_threshold, mutual_pairs
from unreid.labels.neighbours import Search
from unreid.registry import LABELER_REGISTRY
from unreid.structures import FeatureBank, PseudoLabels, PseudoPairs


def neighbours_of_epoch(epoch: int, first: int, last: int, k: int, k_last: int) -> int:
    """Return k of an epoch: from ``k`` at ``first`` linearly to ``k_last`` at ``last``, rounded."""
    share = min(max((epoch - first) / max(last - first, 1), 0.0), 1.0)
    return round(k + share * (k_last - k))


def pair_communities(pairs: PseudoPairs, num_images: int, seed: int) -> np.ndarray:
    """Return communities of the pair graph by the map equation, (N,) int64 in 0..C-1.

    An image without a pair is its own community. The communities are used for the report and for
    clustering metrics only, not for training.
    """
    both = np.concatenate([pairs.indices, pairs.indices[:, ::-1]])
    order = np.argsort(both[:, 0], kind="stable")
    counts = np.bincount(both[:, 0], minlength=num_images)
    indices = np.full((num_images, max(int(counts.max(initial=0)), 1)), -1, dtype=np.int64)
    places = np.arange(len(both)) - np.repeat(np.cumsum(counts) - counts, counts)
    indices[both[order, 0], places] = both[order, 1]
    return map_equation(indices, np.ones(indices.shape, np.float32), min_similarity=0.0, seed=seed)


@LABELER_REGISTRY.register()
class PseudoPairLabeler(Labeler):
    """Labeler of pairs: images among the k nearest of each other, with a similarity above beta.

    Pairs are mined before every epoch, also in epochs with surrogate classes only (for the log).

    Args:
        cfg: Config; uses ``PSEUDOPAIR.*``, ``UNSUP.SEED`` and ``SOLVER.MAX_EPOCH``.
    """

    def __init__(self, cfg: Any) -> None:
        self.pair = cfg.PSEUDOPAIR.PAIR
        self.expected = cfg.PSEUDOPAIR.EXPECTED_POSITIVES
        self.first = first_pair_epoch(cfg)
        self.last = cfg.SOLVER.MAX_EPOCH - 1
        self.seed = cfg.UNSUP.SEED
        self.search = Search.from_config(cfg)

    def describe(self) -> str:
        """Return the settings that determine the pairs, for error messages."""
        return (
            f"PSEUDOPAIR.PAIR.K {self.pair.K} to {self.pair.K_LAST},"
            f" PSEUDOPAIR.EXPECTED_POSITIVES {self.expected}"
        )

    def __call__(self, bank: FeatureBank, epoch: int) -> PseudoLabels:
        """Return the pairs: search neighbours, estimate beta, mine mutual pairs [0]."""
        start = time.perf_counter()
        k = neighbours_of_epoch(epoch, self.first, self.last, self.pair.K, self.pair.K_LAST)
        width = max(k, round(2 * self.expected)) + 1
        neighbours = self.search(bank.features).knn(width)
        searched = time.perf_counter()
        beta, cross = self._thresholds(bank, neighbours)
        pairs = PseudoPairs(
            *mutual_pairs(neighbours, k, beta, camids=bank.camids, beta_cross=cross)
        )
        mined = time.perf_counter()
        labels = pair_communities(pairs, len(bank), self.seed)
        paired = len(np.unique(pairs.indices))
        remarks = {
            "pairs": str(len(pairs)),
            "images in pairs": str(paired),
            "k": str(k),
            "beta": f"{beta:.3f}",
        }
        if cross is not None:
            remarks["beta across cameras"] = f"{cross:.3f}"
        return PseudoLabels(
            labels,
            pairs=pairs,
            remarks=remarks,
            seconds={
                "knn": searched - start,
                "pairs": mined - searched,
                "communities": time.perf_counter() - mined,
            },
        )

    def _thresholds(
        self, bank: FeatureBank, neighbours: tuple[np.ndarray, np.ndarray]
    ) -> tuple[float, float | None]:
        """Return beta and None, or with ``PER_CAMERA`` beta within a camera and across cameras.

        With ``PER_CAMERA``, EXPECTED_POSITIVES is divided in proportion to the numbers of image
        pairs within a camera and across cameras.
        """
        if not self.pair.PER_CAMERA or bank.num_cameras < 2:
            return expected_threshold(bank.features, neighbours, self.expected).beta, None
        sizes = np.bincount(bank.camids).astype(np.float64)
        within = float((sizes * (sizes - 1)).sum() / (len(bank) * (len(bank) - 1)))
        if within == 0:
            return expected_threshold(bank.features, neighbours, self.expected).beta, None
        found = [
            expected_threshold(
                bank.features, neighbours, self.expected * share, camids=bank.camids, cross=cross
            ).beta
            for share, cross in ((within, False), (1 - within, True))
        ]
        return found[0], found[1]
