"""Lookup table V of BUC: one row per cluster, updated by features, cleared after each merge.

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

    Unlike the first release of [0], :meth:`clear` empties V after a merge. The release kept rows of
    the previous clusters. Rows follow the order of files, which are sorted by identity, so a row
    that belonged to a neighbouring cluster leaks ground truth.
    """

    def clear(self, num_clusters: int) -> None:
        """Set C rows to zero: a cluster has no influence until one of its images is in a batch."""
        check_integer("num_clusters", num_clusters, 1)
        self.centroids = torch.zeros(num_clusters, self.num_features, device=self.centroids.device)
