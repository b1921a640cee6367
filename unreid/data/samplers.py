"""Batches drawn from pseudo labels: P clusters times K images, or plainly shuffled.

Notation: N images, C clusters, P clusters per batch, K images per cluster, B = P K, W processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unreid.registry import SAMPLER_REGISTRY
from unreid.structures import PseudoLabels


class _ClusterBatches:
    """What both samplers share: which clusters make a batch.

    Args:
        labels: (N,) int64, -1 = not sampled.
        camids: (N,) int64.
        batch_size: B, a multiple of ``num_instances``.
        num_instances: K.
        num_batches: Batches per pass over this object.
        rng: Source of every choice.

    Raises:
        RuntimeError: no image has a label.
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
        """A sampler of today's labels; ``settings`` are the keywords of the constructor."""
        return cls(pseudo.labels, camids, **settings)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        queue: list[int] = []
        for _ in range(self._num_batches):
            # A cluster comes twice in one batch only when there are fewer than P.
            while len(queue) < self._clusters_per_batch:
                queue += self._rng.permutation(len(self._members)).tolist()
            chosen, queue = self._distinct(queue)
            yield [int(i) for c in chosen for i in self._pick(self._members[c])]

    def _distinct(self, queue: list[int]) -> tuple[list[int], list[int]]:
        """The next P clusters of the queue without repetition, and what stays in it."""
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
        raise TypeError("use a registered sampler")

    def _draw(self, members: np.ndarray, count: int) -> np.ndarray:
        """``count`` of ``members``, without repetition as far as they go."""
        rounds, rest = divmod(count, len(members))
        parts = [self._rng.permutation(members) for _ in range(rounds)]
        return np.concatenate([*parts, self._rng.choice(members, rest, replace=False)])


class RankBatches:
    """One process' share of every batch: of P clusters times K images, P / W whole clusters.

    Every process draws the same batches and takes consecutive images, so that all of them together
    train on what one process would.

    Args:
        batches: Lists of B images, B a multiple of W.
        rank: Of the process.
        num_ranks: W.
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
    """P random clusters, K random images of each."""

    def _pick(self, members: np.ndarray) -> np.ndarray:
        return self._draw(members, self._num_instances)


@SAMPLER_REGISTRY.register()
class CameraAwareSampler(_ClusterBatches):
    """P random clusters; of each an anchor, and K - 1 images from other cameras where it has any.

    A cluster of one camera gives K - 1 other images of that camera.
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
        return np.concatenate([[anchor], self._draw(other, self._num_instances - 1)])


@SAMPLER_REGISTRY.register()
class ShuffleSampler:
    """All labelled images in random order, again and again; no P x K.

    Args:
        labels: (N,) int64, -1 = not sampled.
        camids: (N,) int64, not looked at.
        batch_size: B.
        num_instances: Not looked at.
        num_batches: Batches per pass over this object.
        rng: Source of the order.

    Raises:
        RuntimeError: no image has a label.
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
        """A sampler of today's labels; ``settings`` are the keywords of the constructor."""
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
