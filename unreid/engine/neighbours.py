"""kNN and Jaccard distance of a feature bank on the device that trains, by all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unreid.checks import check_features, check_integer, check_number
from unreid.engine import distributed
from unreid.graph.jaccard import check_neighbours, encode, jaccard_distance
from unreid.graph.knn import knn
from unreid.graph.shares import jaccard_share, join_jaccard, join_knn, knn_share
from unreid.structures import FeatureBank


def find_neighbours(bank: FeatureBank, k: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """:func:`unreid.graph.knn.knn` of the bank: (N, k) int32 indices, (N, k) float32 cosines.

    Inside a label step the search is shared out over all processes; what is found does not depend
    on their number.

    Args:
        bank: N images.
        k: Neighbours, the image itself included; at most N are given.
        device: ``cfg.MODEL.DEVICE``; on a CPU the compiled search takes the arrays as they are.
    """
    if distributed.leads() and len(bank) > distributed.world_size():
        width = min(check_integer("k", k, 1), len(bank))
        shares = distributed.share_out("knn", {"features": bank.features},
                                       {"k": width, "device": device})
        return join_knn(bank.features, width, shares, device=device)  # type: ignore[arg-type]
    if not device.startswith("cuda"):
        return knn(bank.features, k)
    indices, similarities = knn(torch.tensor(bank.features, device=device), k)
    return indices.cpu().numpy(), similarities.cpu().numpy()


def find_jaccard(
    bank: FeatureBank, k1: int, k2: int, *, neighbours: tuple[Any, Any],
    max_distance: float | None = None,
) -> sparse.csr_array:
    """:func:`unreid.graph.jaccard.jaccard_distance` of the bank, shared out likewise."""
    if not distributed.leads():
        return jaccard_distance(bank.features, k1, k2, neighbours=neighbours,
                                max_distance=max_distance)
    check_features("features", bank.features)
    k1, k2 = check_integer("k1", k1, 1), check_integer("k2", k2, 1)
    limit = 1.0 if max_distance is None else check_number("max_distance", max_distance, 0.0)
    width = min(k1, len(bank))
    indices = np.ascontiguousarray(check_neighbours(neighbours, len(bank), width)[:, :width])
    encoded = encode(bank.features, indices, k1, k2)
    names = ("indptr", "columns", "values")
    shares = distributed.share_out("jaccard", dict(zip(names, encoded)), {"max_distance": limit})
    return join_jaccard(len(bank), shares)


def _knn(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], part: int, parts: int
) -> Sequence[np.ndarray]:
    return knn_share(arrays["features"], settings["k"], part, parts, device=settings["device"])


def _jaccard(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], part: int, parts: int
) -> Sequence[np.ndarray]:
    encoded = arrays["indptr"], arrays["columns"], arrays["values"]
    return jaccard_share(encoded, settings["max_distance"], part, parts)


distributed.TASKS.update(knn=_knn, jaccard=_jaccard)
