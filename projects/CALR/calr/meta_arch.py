"""The network of stage 2: cluster memory, camera-entropy weights, camera adversary, proxies.

[0] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450
[1] Wang et al., Camera-aware Proxies for Unsupervised Person Re-Identification (CAP), AAAI 2021,
    https://arxiv.org/abs/2012.10674

Notation: B images, D channels, C clusters.
"""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from torch import Tensor

from calr.adversary import CameraAdversary, reversal_factor
from calr.proxies import CameraProxies
from calr.weights import cluster_weights
from unreid.contracts import StepOutput
from unreid.losses.cluster_nce import cluster_nce
from unreid.modeling.memory_reid import MemoryReID
from unreid.structures import FeatureBank, PseudoLabels


@META_ARCH_REGISTRY.register()
class CALR(MemoryReID):
    """Network with L = L_inter + L_camera [0, Eq. 12] and optional camera-aware proxies [1].

    Args:
        adversary: Camera discriminator, or None for no alignment.
        adversary_epochs: (start, end) of the alignment, end excluded, -1 = to the last epoch.
        adversary_factor: Largest factor of the reversed gradient.
        adversary_schedule: ``"constant"`` or ``"dann"``: see
            :func:`calr.adversary.reversal_factor`.
        weights_start: First epoch with entropy weights, or None for no weights.
        num_epochs: E, for the schedule.
        proxies: Camera-aware proxies [1], or None for no proxies.
        proxy_weights: Weights of their intra-camera and inter-camera loss.
        proxies_start: First epoch with these losses.
        **memory_reid: Arguments of :class:`MemoryReID`.
    """

    @configurable
    def __init__(
        self,
        *,
        adversary: CameraAdversary | None,
        adversary_epochs: tuple[int, int] = (0, -1),
        adversary_factor: float = 1.0,
        adversary_schedule: str = "constant",
        weights_start: int | None = 0,
        num_epochs: int = 1,
        proxies: CameraProxies | None = None,
        proxy_weights: tuple[float, float] = (1.0, 0.5),
        proxies_start: int = 0,
        **memory_reid: Any,
    ) -> None:
        super().__init__(**memory_reid)
        self.adversary = adversary
        self.adversary_epochs = adversary_epochs
        self.adversary_factor = adversary_factor
        self.adversary_schedule = adversary_schedule
        self.weights_start = weights_start
        self.num_epochs = num_epochs
        self.proxies = proxies
        self.proxy_weights = proxy_weights
        self.proxies_start = proxies_start
        self.uses_proxies = False
        self.aligns_cameras = False
        self.factor = adversary_factor
        self.cluster_weights: Tensor | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class from ``CALR.*``, ``UNSUP.*`` and ``MODEL.*``."""
        keywords = MemoryReID.from_config(cfg)
        adversary, proxies = cfg.CALR.ADVERSARY, cfg.CALR.PROXIES
        width = keywords["heads"].num_features
        # Without a training set (--eval-only) the number of cameras is unknown and not needed.
        has_adversary = adversary.ENABLED and cfg.UNSUP.NUM_CAMERAS > 1
        return {
            **keywords,
            "adversary": CameraAdversary(
                width, cfg.UNSUP.NUM_CAMERAS, adversary.HIDDEN, adversary.SOFTMAX_TWICE
            )
            if has_adversary
            else None,
            "adversary_epochs": (adversary.START_EPOCH, adversary.END_EPOCH),
            "adversary_factor": adversary.FACTOR,
            "adversary_schedule": adversary.SCHEDULE,
            "weights_start": cfg.CALR.WEIGHTS.START_EPOCH if cfg.CALR.WEIGHTS.ENABLED else None,
            "num_epochs": cfg.SOLVER.MAX_EPOCH,
            "proxies": CameraProxies(
                width,
                temperature=proxies.TEMPERATURE,
                momentum=proxies.MOMENTUM,
                num_negatives=proxies.NUM_NEGATIVES,
            )
            if proxies.ENABLED
            else None,
            "proxy_weights": (proxies.INTRA_WEIGHT, proxies.INTER_WEIGHT),
            "proxies_start": proxies.START_EPOCH,
        }

    @property
    def find_unused_parameters(self) -> bool:
        """True if the discriminator is not used in some epochs."""
        return self.adversary is not None and self.adversary_epochs != (0, -1)

    def on_new_labels(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Reset memory and proxies; set the cluster weights and the alignment of this epoch."""
        super().on_new_labels(pseudo, bank, epoch)
        self.cluster_weights = None
        if self.weights_start is not None and epoch >= self.weights_start:
            weights = cluster_weights(pseudo.labels, bank.camids)
            self.cluster_weights = torch.from_numpy(weights).to(self.device)
        if self.proxies is not None:
            self.proxies.reset(bank.features, pseudo.labels, bank.camids)
            self.uses_proxies = epoch >= self.proxies_start
        start, end = self.adversary_epochs
        self.aligns_cameras = (
            self.adversary is not None and start <= epoch and (end < 0 or epoch < end)
        )
        self.factor = reversal_factor(
            epoch,
            self.num_epochs,
            self.adversary_epochs,
            self.adversary_factor,
            self.adversary_schedule,
        )

    def losses(self, features: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return ``loss_inter``, weighted InfoNCE [0, Eq. 9], and ``loss_camera`` [0, Eq. 11]."""
        targets = batch["targets"]
        logits = self.memory(features, targets)
        losses = {"loss_inter": cluster_nce(logits, targets, self.cluster_weights)}
        if self.aligns_cameras and self.adversary is not None:
            losses["loss_camera"] = self.adversary(features, batch["camids"], self.factor)
        if self.uses_proxies and self.proxies is not None:
            intra, inter = self.proxies(features, batch["indices"])
            losses["loss_proxy_intra"] = self.proxy_weights[0] * intra
            losses["loss_proxy_inter"] = self.proxy_weights[1] * inter
        return losses

    def forward(self, batch: dict[str, Any]) -> Any:
        """See :meth:`MemoryReID.forward`; with proxies the memory update includes image indices."""
        output = super().forward(batch)
        if not self.training or self.proxies is None:
            return output
        indices = batch["indices"].to(self.device)
        return StepOutput(output.losses, (*output.memory_update, indices))

    @torch.no_grad()
    def update_memory(self, update: tuple[Tensor, ...]) -> None:
        """Update the centroids, and the proxies if any, with the features of a batch.

        Args:
            update: Features (B, D), targets (B,), and with proxies the images (B,).
        """
        features, targets, *images = update
        super().update_memory((features, targets))
        if self.uses_proxies and self.proxies is not None:
            self.proxies.update(features, *images)
