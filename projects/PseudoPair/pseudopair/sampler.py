"""Batches of pairs: each image is followed by a partner.

Notation: N images, M pairs, B images in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unreid.checks import check_integer
from unreid.registry import SAMPLER_REGISTRY
from unreid.structures import PseudoLabels, PseudoPairs


@SAMPLER_REGISTRY.register()
class PairSampler:
    """Sample batches of B / 2 images and a partner of each: i, partner of i, j, partner of j, ...

    All images are sampled once before any is sampled again, independent of labels. The partner is
    sampled from the pairs of the image with probability proportional to confidence. An image
    without a pair is followed by itself, with another augmentation: a true positive.

    Args:
        pairs: Pairs of the label step; may be empty.
        num_images: N.
        batch_size: B, even.
        num_batches: Number of batches per epoch.
        rng: Random generator.

    Raises:
        ValueError: The batch size is odd, or a pair has an index >= N.
    """

    def __init__(
        self,
        pairs: PseudoPairs,
        num_images: int,
        *,
        batch_size: int,
        num_batches: int,
        rng: np.random.Generator,
    ) -> None:
        if check_integer("SOLVER.IMS_PER_BATCH", batch_size, 2) % 2:
            raise ValueError(f"SOLVER.IMS_PER_BATCH must be even for pairs, got {batch_size}")
        if len(pairs) and pairs.indices.max() >= num_images:
            raise ValueError(
                f"pairs must have indices in 0..{num_images - 1}, got {pairs.indices.max()}"
            )
        both = np.concatenate([pairs.indices, pairs.indices[:, ::-1]])
        order = np.argsort(both[:, 0], kind="stable")
        self._partners = both[order, 1]
        self._first = np.searchsorted(both[order, 0], np.arange(num_images + 1))
        # Cumulative sum over the lists of all images: a uniform number between the ends of a list
        # selects a partner.
        weights = np.tile(pairs.confidence.astype(np.float64), 2)[order]
        self._sums = np.concatenate([[0.0], np.cumsum(weights)])
        self._num_images = num_images
        self._per_batch = batch_size // 2
        self._num_batches = num_batches
        self._rng = rng

    @classmethod
    def from_labels(
        cls,
        pseudo: PseudoLabels,
        camids: np.ndarray,
        *,
        batch_size: int,
        num_instances: int,
        num_batches: int,
        rng: np.random.Generator,
    ) -> PairSampler:
        """Return the sampler for the labels of an epoch; ``camids`` is not used.

        Raises:
            ValueError: ``num_instances`` is not 2, or the labels have no pairs (None; an empty
                ``PseudoPairs`` is valid).
        """
        if num_instances != 2:
            raise ValueError(
                "DATALOADER.NUM_INSTANCE must be 2 with PairSampler (an image and its partner),"
                f" got {num_instances!r}"
            )
        if pseudo.pairs is None:
            raise ValueError("PairSampler needs PseudoLabels.pairs, got None")
        return cls(
            pseudo.pairs,
            len(pseudo),
            batch_size=batch_size,
            num_batches=num_batches,
            rng=rng,
        )

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        queue: list[int] = []
        for _ in range(self._num_batches):
            while len(queue) < self._per_batch:
                queue += self._permutation(queue)
            chosen, queue = queue[: self._per_batch], queue[self._per_batch :]
            yield [index for image in chosen for index in (image, self._partner(image))]

    def _permutation(self, waiting: list[int]) -> list[int]:
        """Return a permutation of all images, with those of ``waiting`` (the next batch) last."""
        permutation = self._rng.permutation(self._num_images)
        late = np.isin(permutation, waiting)
        return [*permutation[~late].tolist(), *permutation[late].tolist()]

    def _partner(self, image: int) -> int:
        """Return a random partner of the image, or the image itself if it has none."""
        start, end = int(self._first[image]), int(self._first[image + 1])
        if start == end:
            return image
        low, high = self._sums[start], self._sums[end]
        if high <= low:  # all confidences are zero: uniform
            return int(self._partners[self._rng.integers(start, end)])
        place = np.searchsorted(self._sums, self._rng.uniform(low, high), side="right") - 1
        return int(self._partners[np.clip(place, start, end - 1)])
