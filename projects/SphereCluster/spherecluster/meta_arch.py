"""The network: backbone, sphere head, and the losses of the method and its predecessors.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404
[1] Lin et al., A bottom-up clustering approach to unsupervised person re-identification (BUC),
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33018738
[2] Zeng et al., Hierarchical clustering with hard-batch triplet loss (HCT), CVPR 2020,
    https://arxiv.org/abs/1910.12278
[3] Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022,
    https://arxiv.org/abs/2103.11568

Notation: B images, D channels, C clusters.
"""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from torch import Tensor, nn

from spherecluster.lookup_table import LookupTable
from spherecluster.sphere_head import SphereHead
from unreid.clustering.partition import centroids
from unreid.losses.cluster_nce import cluster_nce
from unreid.losses.hard_triplet import hard_triplet
from unreid.memory.cluster_memory import ClusterMemory
from unreid.modeling.memory_reid import MemoryReID
from unreid.structures import FeatureBank, PseudoLabels


@META_ARCH_REGISTRY.register()
class SphereCluster(MemoryReID):
    """Network whose loss is the sum of the enabled terms.

    The terms are the hard-batch triplet loss [2], softmax over classes, the repelled loss [1] and
    InfoNCE against a cluster memory [3].

    Args:
        margin: Margin of the triplet loss, or None for no triplet loss.
        repelled: Whether to use the repelled loss with the lookup table (``memory``).
        table_start: Initial lookup table after new labels: ``"zero"`` or ``"centroids"``.
        cluster_memory: Cluster memory of the InfoNCE loss, or None for no InfoNCE loss.
        **memory_reid: Arguments of :class:`MemoryReID`; ``heads`` is a ``SphereHead``, ``memory`` a
            :class:`LookupTable`.
    """

    heads: SphereHead
    memory: LookupTable

    @configurable
    def __init__(
        self,
        *,
        margin: float | None,
        repelled: bool,
        table_start: str,
        cluster_memory: ClusterMemory | None = None,
        **memory_reid: Any,
    ) -> None:
        super().__init__(**memory_reid)
        self.margin = margin
        self.repelled = repelled
        self.table_start = table_start
        self.cluster_memory = cluster_memory

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class from ``SPHERECLUSTER.*`` and ``MODEL.*``."""
        sphere = cfg.SPHERECLUSTER
        keywords = MemoryReID.from_config(cfg)
        cluster_memory = keywords["memory"] if sphere.MEMORY.ENABLED else None
        keywords["memory"] = LookupTable(
            keywords["heads"].num_features,
            temperature=sphere.REPELLED.TEMPERATURE,
            momentum=sphere.REPELLED.MOMENTUM,
        )
        return {
            **keywords,
            "margin": sphere.TRIPLET.MARGIN if sphere.TRIPLET.ENABLED else None,
            "repelled": sphere.REPELLED.ENABLED,
            "table_start": sphere.REPELLED.START,
            "cluster_memory": cluster_memory,
        }

    @property
    def find_unused_parameters(self) -> bool:
        """False: every enabled loss is used in every step."""
        return False

    def on_new_labels(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Clear the lookup table, or reset it, the classes and the memory to the new centroids."""
        classes = self.heads.classes
        if self.repelled and self.table_start == "zero":
            self.memory.clear(pseudo.num_clusters)
        from_bank = self.repelled and self.table_start == "centroids"
        if classes is None and self.cluster_memory is None and not from_bank:
            return
        means = torch.from_numpy(centroids(bank.features, pseudo.labels)).to(self.device)
        if from_bank:
            self.memory.reset(means)
        if self.cluster_memory is not None:
            self.cluster_memory.reset(means)
        if classes is not None:
            classes.reset(means)

    def label_parameters(self) -> list[nn.Parameter]:
        """Return the class directions."""
        return [] if self.heads.classes is None else [self.heads.classes.weight]

    def losses(self, features: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the enabled losses.

        Their names are ``loss_triplet``, ``loss_softmax``, ``loss_repelled`` and ``loss_memory``.
        """
        targets = batch["targets"]
        losses: dict[str, Tensor] = {}
        if self.margin is not None:
            losses["loss_triplet"] = hard_triplet(features, targets, self.margin)
        if self.heads.classes is not None:
            losses["loss_softmax"] = self.heads.classes(features, targets)
        if self.repelled:
            losses["loss_repelled"] = cluster_nce(self.memory(features, targets), targets)
        if self.cluster_memory is not None:
            logits = self.cluster_memory(features, targets)
            losses["loss_memory"] = cluster_nce(logits, targets)
        return losses

    def update_memory(self, update: tuple[Tensor, Tensor]) -> None:
        """Update the lookup table and the cluster memory, if they are used."""
        if self.repelled:
            super().update_memory(update)
        if self.cluster_memory is not None:
            self.cluster_memory.update(*update)
