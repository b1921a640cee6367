"""Cache decoded images in one flat array of bytes, which forked workers share without a copy.

Notation: N images, H x W their size.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from unreid.data.images import decode

logger = logging.getLogger("fastreid.unreid.data")

MEBIBYTE = 2**20
_CHUNK = 1024
#: Files with the memory limit and the memory in use of a container: cgroup v2, cgroup v1.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class DecodedImages:
    """Read-only cache of the first images of a list, as many as fit into the budget.

    Args:
        pixels: (num_bytes,) uint8, all images one after the other.
        ends: (N + 1,) int64 offsets; image i is ``pixels[ends[i]:ends[i + 1]]``.
        sizes: (N, 2) int64 height and width of each image.

    Attributes:
        num_bytes: Size of the cached pixels in bytes.
    """

    def __init__(self, pixels: np.ndarray, ends: np.ndarray, sizes: np.ndarray) -> None:
        self._pixels = pixels
        self._ends = ends
        self._sizes = sizes
        self.num_bytes = int(ends[-1])

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, index: int) -> np.ndarray | None:
        """Return read-only (H, W, 3) uint8, or None if image ``index`` is not in the cache."""
        if index >= len(self._sizes):
            return None
        return self._pixels[self._ends[index] : self._ends[index + 1]].reshape(
            *self._sizes[index], 3
        )

    @classmethod
    def from_files(cls, paths: Sequence[str], budget: int) -> DecodedImages:
        """Decode the files in order until the next image does not fit.

        Args:
            paths: N image files.
            budget: Size of the cache in MiB (``UNSUP.CACHE_IMAGES``).

        Raises:
            ValueError: The images need more memory than is free.
            UnreadableImageError: A file cannot be read; names it.
        """
        start = time.perf_counter()
        limit = min(budget * MEBIBYTE, _free_bytes())
        _check_memory(paths, budget, limit)
        # The operating system assigns memory only to pages that are written to.
        pixels = np.empty(limit, dtype=np.uint8)
        ends, sizes = [0], []
        for image in _decode_all(paths):
            if ends[-1] + image.nbytes > limit:
                break
            pixels[ends[-1] : ends[-1] + image.nbytes] = image.ravel()
            ends.append(ends[-1] + image.nbytes)
            sizes.append(image.shape[:2])
        pixels.flags.writeable = False
        cache = cls(pixels, np.array(ends), np.array(sizes, dtype=np.int64).reshape(-1, 2))
        logger.info(
            f"UNSUP.CACHE_IMAGES {budget}: {len(cache)} of {len(paths)} images cached,"
            f" {cache.num_bytes / MEBIBYTE:.1f} MiB, in {time.perf_counter() - start:.1f} s"
            + (
                ""
                if len(cache) == len(paths)
                else "; the other images are decoded whenever they are used"
            )
        )
        return cache


def _decode_all(paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Decode in order with threads, in chunks that limit how many images wait in memory."""
    # The decoders release the global interpreter lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(decode, paths[start : start + _CHUNK])


def _check_memory(paths: Sequence[str], budget: int, limit: int) -> None:
    """Check that the cache fits into ``limit`` bytes, by the mean size of some 16 images."""
    some = paths[:: max(1, len(paths) // 16)]
    wanted = min(budget * MEBIBYTE, len(paths) * sum(decode(p).nbytes for p in some) // len(some))
    if wanted > limit:
        raise ValueError(
            f"UNSUP.CACHE_IMAGES must be at most the free memory, {limit // MEBIBYTE} MiB,"
            f" got {budget}: {len(paths)} images need {wanted // MEBIBYTE} MiB"
        )


def _free_bytes() -> int:
    """Return 90 % of the free memory of the machine or container in bytes; 2^40 if unknown."""
    free = 2**40
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    for limit, used in _LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or the limit is "max"
            continue
    return max(0, free * 9 // 10)
