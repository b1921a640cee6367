"""Score pseudo labels against ids for the log; no other part of the training code has ids.

Notation: N images, M pairs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unreid.evaluation.label_quality import label_quality, pair_quality


class LabelScorer:
    """Compute clustering metrics against ground truth, without access to the ids from outside.

    Args:
        pids: (N,) int64 person ids of the training list.
        camids: (N,) int64 camera ids.
    """

    def __init__(self, pids: np.ndarray, camids: np.ndarray) -> None:
        self._pids = pids
        self._camids = camids

    def __call__(self, labels: np.ndarray) -> Mapping[str, float]:
        """Return pairwise precision, recall, F, ARI, NMI and purity by name, for (N,) labels."""
        scores = label_quality(labels, self._pids, self._camids).as_dict()
        return {k: float(v) for k, v in scores.items() if not k.startswith("num_")}

    def pairs(self, indices: np.ndarray) -> Mapping[str, float]:
        """Return precision and recall of (M, 2) pairs, by name."""
        return pair_quality(indices, self._pids, self._camids)

    def subset(self, indices: np.ndarray) -> LabelScorer:
        """Return a scorer of the images at ``indices``."""
        return LabelScorer(self._pids[indices], self._camids[indices])
