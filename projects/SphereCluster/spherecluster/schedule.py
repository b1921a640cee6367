"""Rounds of a run: their first epochs and their numbers of merges.

[0] Lin et al., A bottom-up clustering approach to unsupervised person re-identification (BUC),
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33018738
[1] Zeng et al., Hierarchical clustering with hard-batch triplet loss (HCT), CVPR 2020,
    https://arxiv.org/abs/1910.12278

Notation: N images, C clusters, m merges per pass, mp merge rate, S passes, r round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SCHEDULES = ("progressive", "restart")

#: Minimum number of clusters: a single class gives no training signal.
MIN_CLUSTERS = 2


def merges_per_pass(rate: float, num_images: int) -> int:
    """Return m = floor(mp N) [0], at least 1."""
    # Rounding: 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996.
    return max(1, math.floor(rate * num_images + 1e-9))


def limit_merges(requested: int, num_clusters: int) -> int:
    """Return ``requested``, limited to the number of merges that leaves two clusters."""
    return min(requested, max(num_clusters - MIN_CLUSTERS, 0))


@dataclass(frozen=True)
class Schedule:
    """The rounds of a run.

    Attributes:
        kind: ``"progressive"``: round 0 trains on single images; each later round first makes one
            pass over the clusters of the previous round, at most S passes in total [0].
            ``"restart"``: every round makes S passes from single images with new features [1].
        rate: mp in (0, 1].
        passes: S >= 1.
        first_epochs: Epochs of round 0, >= 1.
        epochs: Epochs of every later round, >= 1.
    """

    kind: str
    rate: float
    passes: int
    first_epochs: int
    epochs: int

    @classmethod
    def from_config(cls, cfg: Any) -> Schedule:
        """Return the schedule of ``SPHERECLUSTER.*``."""
        sphere = cfg.SPHERECLUSTER
        return cls(
            sphere.SCHEDULE, sphere.MERGE_RATE, sphere.PASSES, sphere.FIRST_EPOCHS, sphere.EPOCHS
        )

    def round_of(self, epoch: int) -> int:
        """Return the round r of an epoch, from 0."""
        if epoch < self.first_epochs:
            return 0
        return 1 + (epoch - self.first_epochs) // self.epochs

    def renews(self, epoch: int) -> bool:
        """Return whether a round begins with ``epoch``."""
        return epoch == 0 or self.round_of(epoch) != self.round_of(epoch - 1)

    def total_passes(self, round_number: int) -> int:
        """Return the number of passes from single images to the clusters of a round."""
        return self.passes if self.kind == "restart" else min(round_number, self.passes)

    def max_clusters(self, num_images: int, min_size: int = 1) -> int:
        """Return the largest C of all rounds, the number of classes that a head needs."""
        if self.kind == "progressive":
            return num_images
        requested = self.passes * merges_per_pass(self.rate, num_images)
        clusters = num_images - limit_merges(requested, num_images)
        return min(clusters, num_images // min_size)
