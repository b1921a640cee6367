"""A backbone, a neck and a cluster memory: the model that cluster-contrastive methods share.

[0] Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022,
    arXiv 2103.11568.

Notation: B images, D channels, C clusters, N training images.
"""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.backbones import build_backbone
from fastreid.modeling.heads import build_heads
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from torch import Tensor, nn

from unreid.clustering.partition import centroids
from unreid.contracts import ReIDModel, StepOutput
from unreid.losses.cluster_nce import cluster_nce
from unreid.memory.cluster_memory import ClusterMemory
from unreid.modeling.ghost_norm import use_ghost_norm
from unreid.structures import FeatureBank, PseudoLabels


@META_ARCH_REGISTRY.register()
class MemoryReID(ReIDModel):
    """Unit features in evaluation; InfoNCE against the cluster memory in training [0, Eq. 3].

    A method subclasses it and overrides :meth:`losses` and, if needed, :meth:`on_new_labels`.

    Args:
        backbone: Maps images to feature maps (B, D', H, W).
        heads: Maps feature maps to (B, D) unit rows; has an attribute ``num_features`` (D).
        memory: Cluster memory.
        pixel_mean: Mean of each colour channel, in 0..255.
        pixel_std: Standard deviation of each colour channel, in 0..255.
        ghost_bn: Images per batch-norm group; 0 keeps plain batch norm.
        channels_last: Use the memory format ``torch.channels_last``: the same results up to
            rounding, and faster on CPUs and tensor cores.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        heads: nn.Module,
        memory: ClusterMemory,
        pixel_mean: list[float],
        pixel_std: list[float],
        ghost_bn: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.memory = memory
        if ghost_bn:
            use_ghost_norm(self, ghost_bn)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, -1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, -1, 1, 1), False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class from ``MODEL.*`` and ``UNSUP.MEMORY.*``."""
        heads = build_heads(cfg)
        memory = cfg.UNSUP.MEMORY
        return {
            "backbone": build_backbone(cfg),
            "heads": heads,
            "memory": ClusterMemory(
                heads.num_features,
                temperature=memory.TEMPERATURE,
                momentum=memory.MOMENTUM,
                update=memory.UPDATE,
            ),
            "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
            "pixel_std": list(cfg.MODEL.PIXEL_STD),
            "ghost_bn": cfg.MODEL.GHOST_BN,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
        }

    @property
    def find_unused_parameters(self) -> bool:
        """Whether a training step may leave parameters without a gradient.

        False for this class, because its loss depends on all parameters. True for a subclass that
        overrides ``losses`` or ``forward``; it should override this property if it can, because
        the search for unused parameters takes time.
        """
        return type(self).losses is not MemoryReID.losses or type(self).forward is not (
            MemoryReID.forward
        )

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.pixel_mean.device

    def forward(self, batch: dict[str, Any]) -> Any:
        """Return a :class:`StepOutput` in training, (B, D) unit features in evaluation.

        Args:
            batch: ``images`` (B, 3, H, W) float in 0..255; in training also ``targets``,
                ``camids`` and ``indices``, each (B,) int64. The batch is not changed.
        """
        features = self.heads(self.backbone(self.normalized(batch["images"])))
        if not self.training:
            return features
        batch = {
            k: v.to(self.device) if isinstance(v, Tensor) and k != "images" else v
            for k, v in batch.items()
        }
        update = features.detach(), batch["targets"]
        return StepOutput(self.losses(features, batch), update)

    def normalized(self, images: Tensor) -> Tensor:
        """Return (images - pixel_mean) / pixel_std as a new tensor.

        ``Baseline`` of fast-reid normalises in place, so a second forward pass on the same batch
        (flip test, teacher network) gets wrong images.
        """
        images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return (images - self.pixel_mean) / self.pixel_std

    def losses(self, features: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the scalar losses by name; each is logged, and their sum is minimised."""
        targets = batch["targets"]
        return {"loss_memory": cluster_nce(self.memory(features, targets), targets)}

    def on_new_labels(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Initialise the memory with the normalised cluster means of ``bank``."""
        means = centroids(bank.features, pseudo.labels)
        self.memory.reset(torch.from_numpy(means).to(self.device))

    @torch.no_grad()
    def update_memory(self, update: tuple[Tensor, Tensor]) -> None:
        """Update the centroids with the features and targets of a batch."""
        self.memory.update(*update)
