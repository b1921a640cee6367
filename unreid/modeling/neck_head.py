"""A head with a BN neck and without classifier, because the number of clusters changes.

Notation: B images, D channels.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.layers import get_norm, pooling
from fastreid.layers.weight_init import weights_init_kaiming
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import Tensor, nn

from unreid.checks import nearest


def check_pooling(name: str) -> None:
    """Check that ``name`` is a pooling layer of fast-reid.

    Raises:
        KeyError: The layer does not exist; lists the existing ones.
    """
    if name not in pooling.__all__:
        raise KeyError(
            f"MODEL.HEADS.POOL_LAYER must be one of {', '.join(pooling.__all__)}, got {name!r}"
            f"{nearest(name, pooling.__all__)}"
        )


@REID_HEADS_REGISTRY.register()
class NeckHead(nn.Module):
    """Pooling, optional 1x1 convolution, BN with frozen bias, L2 normalisation.

    ``EmbeddingHead`` of fast-reid has a classifier with NUM_CLASSES rows, a fixed number. Here the
    class weights belong to a memory or to the method.

    Args:
        feat_dim: Channels of the feature map of the backbone.
        embedding_dim: Channels after the 1x1 convolution; 0 for no convolution.
        pool_type: A layer of ``fastreid.layers.pooling`` (``GlobalAvgPool``,
            ``GeneralizedMeanPoolingP``, ...).
        with_bnneck: Whether to use the BN neck.
        norm_type: Norm of the neck, see ``MODEL.HEADS.NORM``.

    Raises:
        KeyError: The pooling layer does not exist.
    """

    @configurable
    def __init__(
        self,
        *,
        feat_dim: int,
        embedding_dim: int,
        pool_type: str,
        with_bnneck: bool,
        norm_type: str,
    ) -> None:
        super().__init__()
        check_pooling(pool_type)
        self.pool_layer = getattr(pooling, pool_type)()
        neck: list[nn.Module] = []
        if embedding_dim > 0:
            neck.append(nn.Conv2d(feat_dim, embedding_dim, 1, 1, bias=False))
        self.num_features = embedding_dim or feat_dim
        if with_bnneck:
            neck.append(get_norm(norm_type, self.num_features, bias_freeze=True))
        self.bottleneck = nn.Sequential(*neck)
        self.bottleneck.apply(weights_init_kaiming)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class from ``MODEL.BACKBONE.FEAT_DIM``, ``MODEL.HEADS.*``."""
        return {
            "feat_dim": cfg.MODEL.BACKBONE.FEAT_DIM,
            "embedding_dim": cfg.MODEL.HEADS.EMBEDDING_DIM,
            "pool_type": cfg.MODEL.HEADS.POOL_LAYER,
            "with_bnneck": cfg.MODEL.HEADS.WITH_BNNECK,
            "norm_type": cfg.MODEL.HEADS.NORM,
        }

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, D) unit rows for feature maps (B, feat_dim, H, W)."""
        neck = self.bottleneck(self.pool_layer(features))[..., 0, 0]
        # Normalise in float32, also under autocast: half precision is too coarse for small values.
        return F.normalize(neck.float())
