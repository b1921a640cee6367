"""Camera-aware proxies: one centroid per cluster and camera, contrasted within and across cameras.

A cluster centroid mixes the cameras of its images. A proxy is the centroid of the images of one
cluster in one camera, so a loss can increase the similarity across cameras directly.

[0] Wang et al., Camera-aware Proxies for Unsupervised Person Re-Identification (CAP), AAAI 2021,
    https://arxiv.org/abs/2012.10674

Notation: N images, B images of a batch, D channels, P proxies; f a feature, p a proxy.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unreid.checks import check_integer
from unreid.clustering.partition import centroids
from unreid.memory.cluster_memory import ClusterMemory
from unreid.structures import NOISE


def number_proxies(labels: np.ndarray, camids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign a number to each pair (cluster, camera) that occurs.

    Args:
        labels: (N,) int64 clusters, -1 = noise.
        camids: (N,) int64 cameras from 0.

    Returns:
        (N,) int64 proxy of each image in 0..P-1, -1 for noise; and (P, 2) int64 cluster and camera
        of each proxy.
    """
    kept = labels != NOISE
    pairs, numbers = np.unique(
        np.stack([labels[kept], camids[kept]], axis=1), axis=0, return_inverse=True
    )
    proxies = np.full(len(labels), NOISE, dtype=np.int64)
    proxies[kept] = numbers.ravel()
    return proxies, pairs


class CameraProxies(nn.Module):
    """Proxies as a memory, with the two losses of [0].

    Args:
        num_features: D.
        temperature: tau > 0.
        momentum: Weight of the old proxy in an update, in 0..1.
        num_negatives: Most similar proxies of other clusters in the inter-camera loss, >= 1.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self, num_features: int, *, temperature: float, momentum: float, num_negatives: int
    ) -> None:
        super().__init__()
        self.memory = ClusterMemory(num_features, temperature=temperature, momentum=momentum)
        self.num_negatives = check_integer("num_negatives", num_negatives, 1)
        for name in ("proxy_of_image", "cluster", "camera"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)

    proxy_of_image: Tensor
    cluster: Tensor
    camera: Tensor

    def reset(self, features: np.ndarray, labels: np.ndarray, camids: np.ndarray) -> None:
        """Set the proxies to the unit means of their images.

        Args:
            features: (N, D) float32, unit rows.
            labels: (N,) int64 clusters, -1 = noise; at least one image is in a cluster.
            camids: (N,) int64 cameras from 0.
        """
        proxies, pairs = number_proxies(labels, camids)
        device = self.proxy_of_image.device
        self.memory.reset(torch.from_numpy(centroids(features, proxies)))
        self.proxy_of_image = torch.from_numpy(proxies).to(device)
        self.cluster = torch.from_numpy(pairs[:, 0].copy()).to(device)
        self.camera = torch.from_numpy(pairs[:, 1].copy()).to(device)

    def forward(self, features: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the intra-camera and the inter-camera loss [0, Eq. 2 and 4].

        Intra-camera: cross entropy of f . p / tau over the proxies of the image's own camera.
        Inter-camera: the positives are the proxies of the image's cluster in other cameras, the
        negatives the ``num_negatives`` most similar proxies of other clusters; the loss is the
        mean over the positives of -log softmax. An image whose cluster is in one camera only has
        no inter-camera loss; a batch of such images has loss 0, on the graph.

        Args:
            features: (B, D) floating, unit rows.
            indices: (B,) int64 images, each in a cluster.

        Returns:
            Two () float32 losses, each the mean over the images it applies to.

        Raises:
            ValueError: An image is not in a cluster.
        """
        own = self.proxy_of_image[indices]
        logits = self.memory(features, own)
        inside = self.camera == self.camera[own][:, None]
        same = self.cluster == self.cluster[own][:, None]
        intra = F.cross_entropy(logits.masked_fill(~inside, -torch.inf), own)
        positive = same & ~inside
        rows = positive.any(dim=1)
        if not bool(rows.any()):
            return intra, logits.sum() * 0.0
        logits, positive, same = logits[rows], positive[rows], same[rows]
        count = min(self.num_negatives, logits.shape[1])
        negatives = logits.masked_fill(same, -torch.inf).topk(count, dim=1).values
        positives = logits.masked_fill(~positive, -torch.inf)
        total = torch.logsumexp(torch.cat([positives, negatives], dim=1), dim=1)
        mean = logits.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1)
        return intra, (total - mean).mean()

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Update the proxies of a batch; see :meth:`forward` for the arguments."""
        self.memory.update(features, self.proxy_of_image[indices])
