"""Sample batches from pseudo labels: P clusters times K images, or all images shuffled.

Notation: N images, C clusters, P clusters per batch, K images per cluster, B = P K, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unreid.registry import SAMPLER_REGISTRY
from unreid.structures import PseudoLabels


class _ClusterBatches:
    """Base class of P x K samplers; samples the clusters of each batch.

    Args:
        labels: (N,) int64; images with label -1 are not sampled.
        camids: (N,) int64 cameras.
        batch_size: B, a multiple of ``num_instances``.
        num_instances: K.
        num_batches: Number of batches of one iteration over this object.
        rng: Random generator of all choices.

    Raises:
        RuntimeError: No image has a label.
    """

    def __init__(
        self,
        labels: np.ndarray,
        camids: np.ndarray,
        *,
        batch_size: int,
        num_instances: int,
        num_batches: int,
        rng: np.random.Generator,
    ) -> None:
        labelled = np.flatnonzero(labels >= 0)
        if labelled.size == 0:
            raise RuntimeError(f"no cluster to sample from: all {len(labels)} images are noise")
        order = labelled[np.argsort(labels[labelled], kind="stable")]
        counts = np.bincount(labels[labelled])
        self._members = np.split(order, np.cumsum(counts)[:-1])
        self._camids = camids
        self._clusters_per_batch = batch_size // num_instances
        self._num_instances = num_instances
        self._num_batches = num_batches
        self._rng = rng

    @classmethod
    def from_labels(cls, pseudo: PseudoLabels, camids: np.ndarray, **settings: Any) -> Any:
        """Return a sampler of pseudo labels.

        Args:
            pseudo: Labels of this epoch.
            camids: (N,) int64 cameras.
            **settings: Further arguments of the constructor.
        """
        return cls(pseudo.labels, camids, **settings)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        queue: list[int] = []
        for _ in range(self._num_batches):
            # A cluster is repeated within a batch only if there are fewer than P clusters.
            while len(queue) < self._clusters_per_batch:
                queue += self._rng.permutation(len(self._members)).tolist()
            chosen, queue = self._next_distinct(queue)
            yield [int(i) for c in chosen for i in self._pick(self._members[c])]

    def _next_distinct(self, queue: list[int]) -> tuple[list[int], list[int]]:
        """Return the next P distinct clusters of the queue, and the remaining queue."""
        size = min(self._clusters_per_batch, len(self._members))
        chosen: list[int] = []
        left: list[int] = []
        for position, cluster in enumerate(queue):
            if len(chosen) == size:
                left += queue[position:]
                break
            (left if cluster in chosen else chosen).append(cluster)
        while len(chosen) < self._clusters_per_batch:
            chosen.append(left.pop(0) if left else chosen[len(chosen) % size])
        return chosen, left

    def _pick(self, members: np.ndarray) -> np.ndarray:
        """Return K of the images of one cluster."""
        raise TypeError("use a registered sampler")

    def _sample(self, members: np.ndarray, count: int) -> np.ndarray:
        """Sample ``count`` members; none is repeated before all have been sampled."""
        rounds, rest = divmod(count, len(members))
        parts = [self._rng.permutation(members) for _ in range(rounds)]
        return np.concatenate([*parts, self._rng.choice(members, rest, replace=False)])


class RankBatches:
    """The part of every batch that one process trains on: P / W whole clusters of K images.

    Every process samples the same batches and takes its slice of consecutive images, so that all
    processes together train on the batches of a single process.

    Args:
        batches: Lists of B image indices, B a multiple of W.
        rank: Rank of the process.
        num_ranks: Number of processes W.
    """

    def __init__(self, batches: Any, rank: int, num_ranks: int) -> None:
        self._batches = batches
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            size = len(batch) // self._num_ranks
            yield batch[self._rank * size : (self._rank + 1) * size]


@SAMPLER_REGISTRY.register()
class ClusterSampler(_ClusterBatches):
    """Sample P random clusters and K random images of each."""

    def _pick(self, members: np.ndarray) -> np.ndarray:
        return self._sample(members, self._num_instances)


@SAMPLER_REGISTRY.register()
class CameraAwareSampler(_ClusterBatches):
    """Sample P random clusters; of each, an anchor and K - 1 images from other cameras.

    If a cluster has images of one camera only, the K - 1 images are of that camera.
    """

    def _pick(self, members: np.ndarray) -> np.ndarray:
        anchor = int(self._rng.choice(members))
        if self._num_instances == 1:
            return np.array([anchor])
        other = members[self._camids[members] != self._camids[anchor]]
        if other.size == 0:
            other = members[members != anchor]
        if other.size == 0:
            other = members
        return np.concatenate([[anchor], self._sample(other, self._num_instances - 1)])


@SAMPLER_REGISTRY.register()
class ShuffleSampler:
    """Sample all labelled images in random order, without P x K structure.

    Args:
        labels: (N,) int64; images with label -1 are not sampled.
        camids: (N,) int64 cameras; not used.
        batch_size: B.
        num_instances: Not used.
        num_batches: Number of batches of one iteration over this object.
        rng: Random generator of the order.

    Raises:
        RuntimeError: No image has a label.
    """

    def __init__(
        self,
        labels: np.ndarray,
        camids: np.ndarray,
        *,
        batch_size: int,
        num_instances: int,
        num_batches: int,
        rng: np.random.Generator,
    ) -> None:
        self._images = np.flatnonzero(labels >= 0)
        if self._images.size == 0:
            raise RuntimeError(f"nothing to sample from: all {len(labels)} images are noise")
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._rng = rng

    @classmethod
    def from_labels(cls, pseudo: PseudoLabels, camids: np.ndarray, **settings: Any) -> Any:
        """Return a sampler of pseudo labels.

        Args:
            pseudo: Labels of this epoch.
            camids: (N,) int64 cameras.
            **settings: Further arguments of the constructor.
        """
        return cls(pseudo.labels, camids, **settings)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        queue: list[int] = []
        for _ in range(self._num_batches):
            while len(queue) < self._batch_size:
                queue += self._rng.permutation(self._images).tolist()
            yield queue[: self._batch_size]
            queue = queue[self._batch_size :]
