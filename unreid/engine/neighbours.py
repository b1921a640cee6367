"""kNN of a feature bank on the device that trains: the search is the label step's largest part."""

from __future__ import annotations

import numpy as np
import torch

from unreid.graph.knn import knn
from unreid.structures import FeatureBank


def find_neighbours(bank: FeatureBank, k: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """:func:`unreid.graph.knn.knn` of the bank: (N, k) int32 indices, (N, k) float32 cosines.

    Args:
        bank: N images.
        k: Neighbours, the image itself included; at most N are given.
        device: ``cfg.MODEL.DEVICE``; on a CPU the compiled search takes the arrays as they are.
    """
    if not device.startswith("cuda"):
        return knn(bank.features, k)
    indices, similarities = knn(torch.tensor(bank.features, device=device), k)
    return indices.cpu().numpy(), similarities.cpu().numpy()
