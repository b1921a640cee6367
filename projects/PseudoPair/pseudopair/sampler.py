"""Batches of pairs: an image and its partner side by side.

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
    """B / 2 images and a partner of each: i, partner of i, j, partner of j, ...

    Every image of the set takes its turn before any comes again, whatever its label. Its partner
    is drawn by confidence among its pairs; an image without one is followed by itself, of which
    the transforms make another picture: a true positive.

    Args:
        pairs: today's; there may be none.
        num_images: N.
        batch_size: B, even.
        num_batches: batches per pass over this object.
        rng: source of every choice.

    Raises:
        ValueError: an odd batch size, or a pair of images that are not there.
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
                f"pairs must be of images 0..{num_images - 1}, got {pairs.indices.max()}"
            )
        both = np.concatenate([pairs.indices, pairs.indices[:, ::-1]])
        order = np.argsort(both[:, 0], kind="stable")
        self._partners = both[order, 1]
        self._first = np.searchsorted(both[order, 0], np.arange(num_images + 1))
        # One running sum over all lists: a number between its ends draws from an image's list.
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
        """The sampler of a label step; cameras play no part.

        Raises:
            ValueError: ``num_instances`` is not 2, or the labels carry no pairs (none found is an
                empty ``PseudoPairs``, not None).
        """
        if num_instances != 2:
            raise ValueError(
                "DATALOADER.NUM_INSTANCE must be 2 with PairSampler (an image and its partner),"
                f" got {num_instances!r}"
            )
        if pseudo.pairs is None:
            raise ValueError("PairSampler must be given PseudoLabels.pairs, got None")
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
                queue += self._fresh(queue)
            chosen, queue = queue[: self._per_batch], queue[self._per_batch :]
            yield [index for image in chosen for index in (image, self._partner(image))]

    def _fresh(self, waiting: list[int]) -> list[int]:
        """A new turn of all images; those that wait for this very batch go to its end."""
        turn = self._rng.permutation(self._num_images)
        late = np.isin(turn, waiting)
        return [*turn[~late].tolist(), *turn[late].tolist()]

    def _partner(self, image: int) -> int:
        """One of the image's partners, or itself."""
        start, end = int(self._first[image]), int(self._first[image + 1])
        if start == end:
            return image
        low, high = self._sums[start], self._sums[end]
        if high <= low:  # no confidence in any: all alike
            return int(self._partners[self._rng.integers(start, end)])
        place = np.searchsorted(self._sums, self._rng.uniform(low, high), side="right") - 1
        return int(self._partners[np.clip(place, start, end - 1)])
