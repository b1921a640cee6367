"""BUC's lookup table V: one row per cluster, written by features, empty after each merge.

[0] Lin et al., A bottom-up clustering approach to unsupervised person re-identification (BUC),
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33018738

Notation: C clusters, D channels; v feature, y its cluster.
"""

from __future__ import annotations

import torch

from unreid.checks import check_integer
from unreid.memory.cluster_memory import ClusterMemory


class LookupTable(ClusterMemory):
    """Logits v . V_j / tau; V_y <- normalise(m V_y + (1 - m) v) after the step [0, Eq. 2-3].

    Unlike the first release of [0], which filled V after a merge from the clusters before it,
    :meth:`clear` leaves nothing: rows are numbered in the order of the files, files are sorted by
    identity, and a row that was once its neighbour's gives that order away.
    """

    def clear(self, num_clusters: int) -> None:
        """C rows of zeros: a cluster repels nobody until one of its images was seen."""
        check_integer("num_clusters", num_clusters, 1)
        self.centroids = torch.zeros(num_clusters, self.num_features, device=self.centroids.device)
