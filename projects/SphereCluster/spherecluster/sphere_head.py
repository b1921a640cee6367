"""The head: L2-normalised features, and class weights of which the first C rows are used.

[0] Clustering Matters: Sphere Feature for Fully Unsupervised Person Re-identification,
    ACM TOMM 2022, https://doi.org/10.1145/3501404
[1] Lin et al., A bottom-up clustering approach to unsupervised person re-identification (BUC),
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.33018738

Notation: B images, D channels, C clusters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import Tensor, nn

from spherecluster.schedule import Schedule
from unreid.losses.sphere_softmax import sphere_softmax
from unreid.modeling.neck_head import NeckHead


class SphereClasses(nn.Module):
    """Trained class weights: a parameter of fixed size whose first C rows are used.

    The number of clusters changes in every round, but a new parameter would not be in the
    optimiser. Unused rows are zero, and remain zero under weight decay.

    Args:
        capacity: Largest C of a run; 0 takes the size of the loaded weights (evaluation).
        num_features: D.
        scale: s of the softmax.
    """

    active: Tensor

    def __init__(self, capacity: int, num_features: int, scale: float = 14.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(capacity, num_features))
        self.register_buffer("active", torch.zeros((), dtype=torch.int64))
        self.scale = scale

    @torch.no_grad()
    def reset(self, centroids: Tensor) -> None:
        """Set the first C rows to ``centroids`` (C, D) and the others to zero.

        Raises:
            RuntimeError: C is larger than the capacity.
        """
        if len(centroids) > len(self.weight):
            raise RuntimeError(
                f"got {len(centroids)} clusters, but the head has only {len(self.weight)} class"
                " weights"
            )
        self.weight.zero_()
        self.weight[: len(centroids)] = centroids.to(self.weight)
        self.active.fill_(len(centroids))

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Return the softmax loss of (B, D) features over the C classes; targets in 0..C-1."""
        return sphere_softmax(features, self.weight[: int(self.active)], targets, self.scale)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        """Adopt the saved size if there is none yet; ignore weights of another size."""
        saved = state.get(prefix + "weight")
        if saved is not None and saved.shape != self.weight.shape:
            if len(self.weight) == 0 and saved.shape[1:] == self.weight.shape[1:]:
                self.weight.data = self.weight.new_zeros(saved.shape)
            else:
                for name in ("weight", "active"):
                    state.pop(prefix + name, None)
        super()._load_from_state_dict(state, prefix, *args)


@REID_HEADS_REGISTRY.register()
class SphereHead(NeckHead):
    """Pooling, optional linear embedding, BN neck, L2 normalisation, dropout.

    Args:
        sphere: Whether to normalise the features [0].
        dropout: Fraction of channels dropped in training, after the normalisation [1].
        neck_feat: Features in evaluation: ``"after"`` the neck, or ``"before"`` it, as in the
            released code of [1].
        capacity: Number of rows of the class weights; None for no classes.
        scale: s of the softmax over classes.
        **neck: Arguments of :class:`NeckHead`.
    """

    @configurable
    def __init__(
        self,
        *,
        sphere: bool,
        dropout: float,
        neck_feat: str,
        capacity: int | None,
        scale: float,
        **neck: Any,
    ) -> None:
        super().__init__(**neck)
        self.sphere = sphere
        self.neck_feat = neck_feat
        self.dropout = nn.Dropout(dropout)
        self.classes = (
            None if capacity is None else SphereClasses(capacity, self.num_features, scale)
        )

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments from ``MODEL.*``, ``SPHERECLUSTER.*`` and ``UNSUP.NUM_IMAGES``."""
        sphere = cfg.SPHERECLUSTER
        capacity = None
        if sphere.SOFTMAX.ENABLED:
            schedule = Schedule.from_config(cfg)
            capacity = schedule.max_clusters(cfg.UNSUP.NUM_IMAGES, sphere.MIN_CLUSTER_SIZE)
        return {
            **NeckHead.from_config(cfg),
            "sphere": sphere.SPHERE,
            "dropout": sphere.DROPOUT,
            "neck_feat": cfg.MODEL.HEADS.NECK_FEAT,
            "capacity": capacity,
            "scale": sphere.SOFTMAX.SCALE,
        }

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, D) features of maps (B, feat_dim, H, W); unit rows with ``sphere``."""
        rows = self.pool_layer(features)
        if self.training or self.neck_feat == "after":
            rows = self.bottleneck(rows)
        # Normalise in float32, also under autocast: half precision is too coarse for small values.
        rows = rows[..., 0, 0].float()
        if self.sphere:
            rows = F.normalize(rows)
        return self.dropout(rows)
