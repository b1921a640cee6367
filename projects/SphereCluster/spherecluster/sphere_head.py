"""The head: features on the sphere, and class directions of which a shrinking prefix is in use.

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
    """Trained class directions: a parameter of fixed size, the first C rows of it in use.

    The number of clusters changes every round, but a new parameter would be one that the optimiser
    does not know. Rows out of use are zero, and stay so under weight decay.

    Args:
        capacity: The largest C of a run; 0 takes the size of the loaded weights (evaluation).
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
        """Let the first C rows be ``centroids`` (C, D) and the others zero.

        Raises:
            RuntimeError: more clusters than there is room for.
        """
        if len(centroids) > len(self.weight):
            raise RuntimeError(
                f"{len(centroids)} clusters, but the head has room for {len(self.weight)}"
            )
        self.weight.zero_()
        self.weight[: len(centroids)] = centroids.to(self.weight)
        self.active.fill_(len(centroids))

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """The softmax loss of (B, D) features over the classes in use; targets in 0..C-1."""
        return sphere_softmax(features, self.weight[: int(self.active)], targets, self.scale)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the saved size where there is none yet; leave classes of another run alone."""
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
    """Pooling -> (linear embedding) -> BN neck -> sphere -> dropout.

    Args:
        sphere: Whether rows are brought to unit length [0]; else they keep theirs.
        dropout: Share of channels dropped in training, after the sphere [1].
        neck_feat: What evaluation sees: ``"after"`` the neck, or the pooled features ``"before"``
            it, as the program of [1].
        capacity: Room for class directions; None has no classes.
        scale: s of the softmax over them.
        neck: Keywords of :class:`NeckHead`.
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
        """Keywords from ``MODEL.*``, ``SPHERECLUSTER.*`` and ``UNSUP.NUM_IMAGES``."""
        sphere = cfg.SPHERECLUSTER
        capacity = None
        if sphere.SOFTMAX.ENABLED:
            schedule = Schedule.from_config(cfg)
            capacity = schedule.most_clusters(cfg.UNSUP.NUM_IMAGES, sphere.MIN_CLUSTER_SIZE)
        return {
            **NeckHead.from_config(cfg),
            "sphere": sphere.SPHERE,
            "dropout": sphere.DROPOUT,
            "neck_feat": cfg.MODEL.HEADS.NECK_FEAT,
            "capacity": capacity,
            "scale": sphere.SOFTMAX.SCALE,
        }

    def forward(self, features: Tensor) -> Tensor:
        """(B, feat_dim, H, W) map -> (B, D) rows: unit ones on the sphere, but for dropout."""
        rows = self.pool_layer(features)
        if self.training or self.neck_feat == "after":
            rows = self.bottleneck(rows)
        # Lengths in float32, also under autocast: half precision loses small channels.
        rows = rows[..., 0, 0].float()
        if self.sphere:
            rows = F.normalize(rows)
        return self.dropout(rows)
