"""Feature transforms before clustering; the memory uses the features without them.

Each transform maps a :class:`FeatureBank` to another one of the same images. Smoothing needs the
neighbours of its input features, and clustering those of its output features, so they cannot share
one search.

Notation: k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unreid.graph.centering import center_cameras
from unreid.graph.smoothing import smooth_mutual
from unreid.graph.whitening import whiten_cameras
from unreid.labels.neighbours import Search
from unreid.structures import FeatureBank

Transform = Callable[[FeatureBank], FeatureBank]


@dataclass(frozen=True)
class CenterCameras:
    """Subtract the mean feature of each camera (``UNSUP.CENTER_CAMERAS``)."""

    shrinkage: float = 16.0

    def __call__(self, bank: FeatureBank) -> FeatureBank:
        centred = center_cameras(bank.features, bank.camids, self.shrinkage)
        return FeatureBank(centred, bank.camids)


@dataclass(frozen=True)
class WhitenCameras:
    """Centre and whiten the features of each camera (``UNSUP.WHITEN_CAMERAS``, the power)."""

    power: float
    shrinkage: float = 16.0

    def __call__(self, bank: FeatureBank) -> FeatureBank:
        whitened = whiten_cameras(
            bank.features, bank.camids, power=self.power, mean_shrinkage=self.shrinkage
        )
        return FeatureBank(whitened, bank.camids)


@dataclass(frozen=True)
class SmoothNeighbours:
    """Average each feature with its k mutual neighbours (``UNSUP.SMOOTH_NEIGHBOURS``)."""

    k: int
    search: Search

    def __call__(self, bank: FeatureBank) -> FeatureBank:
        neighbours = self.search(bank.features).knn(self.k + 1)
        smoothed = smooth_mutual(bank.features, self.k, neighbours=neighbours)
        return FeatureBank(smoothed, bank.camids)


def transforms_from_config(
    cfg: Any, search: Search, *, center: bool | None = None
) -> tuple[Transform, ...]:
    """Return the transforms of ``UNSUP`` in their order.

    Args:
        cfg: A checked config.
        search: Neighbour search of smoothing.
        center: Whether to subtract camera means; None uses ``UNSUP.CENTER_CAMERAS``. If False,
            features are not whitened either.
    """
    unsup = cfg.UNSUP
    found: list[Transform] = []
    if unsup.CENTER_CAMERAS if center is None else center:
        found.append(
            WhitenCameras(unsup.WHITEN_CAMERAS, unsup.CENTER_SHRINKAGE)
            if unsup.WHITEN_CAMERAS
            else CenterCameras(unsup.CENTER_SHRINKAGE)
        )
    if unsup.SMOOTH_NEIGHBOURS:
        found.append(SmoothNeighbours(unsup.SMOOTH_NEIGHBOURS, search))
    return tuple(found)


def apply_transforms(bank: FeatureBank, transforms: Sequence[Transform]) -> FeatureBank:
    """Return ``bank`` after all transforms; ``bank`` itself if there are none."""
    for transform in transforms:
        bank = transform(bank)
    return bank
