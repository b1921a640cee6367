"""Transforms of features before they are clustered; the memory never sees them.

Each takes a :class:`FeatureBank` and returns another of the same images. Smoothing searches the
neighbours of the features as they are before it, clustering those of the features after it, so
that one search cannot serve both.

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
    """Subtract each camera's mean feature (``UNSUP.CENTER_CAMERAS``)."""

    shrinkage: float = 16.0

    def __call__(self, bank: FeatureBank) -> FeatureBank:
        centred = center_cameras(bank.features, bank.camids, self.shrinkage)
        return FeatureBank(centred, bank.camids)


@dataclass(frozen=True)
class WhitenCameras:
    """Centre and whiten each camera's features by a power (``UNSUP.WHITEN_CAMERAS``)."""

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
    """Return the transforms that ``UNSUP`` asks for, in their order.

    Args:
        cfg: A checked config.
        search: Finds the neighbours of smoothing.
        center: Whether camera means are subtracted; None reads ``UNSUP.CENTER_CAMERAS``. Without
            it nothing is whitened.
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
    """Return the bank after all transforms; the bank itself where there are none."""
    for transform in transforms:
        bank = transform(bank)
    return bank
