"""Keep decoded images in one flat array of bytes, which forked workers share without a copy.

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
#: Files with a container's memory limit and use, of control groups version 2 and 1.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class DecodedImages:
    """The first images of a list, as many as fit; read-only.

    Attributes:
        num_bytes: Size of all pixels.
    """

    def __init__(self, pixels: np.ndarray, ends: np.ndarray, sizes: np.ndarray) -> None:
        self._pixels = pixels
        self._ends = ends
        self._sizes = sizes
        self.num_bytes = int(ends[-1])

    def __len__(self) -> int:
        return len(self._sizes)

    def get(self, index: int) -> np.ndarray | None:
        """Return (H, W, 3) uint8, not writeable, or None if image ``index`` did not fit."""
        if index >= len(self._sizes):
            return None
        return self._pixels[self._ends[index] : self._ends[index + 1]].reshape(
            *self._sizes[index], 3
        )

    @classmethod
    def of_files(cls, paths: Sequence[str], budget: int) -> DecodedImages:
        """Decode ``paths`` in their order until the next image does not fit.

        Args:
            paths: N files.
            budget: ``UNSUP.CACHE_IMAGES``, in MiB.

        Raises:
            ValueError: the images need more memory than is free.
            UnreadableImageError: names a file.
        """
        start = time.perf_counter()
        limit = min(budget * MEBIBYTE, _free_bytes())
        _check_room(paths, budget, limit)
        # Reserved address space: pages that are never written to take no memory.
        pixels = np.empty(limit, dtype=np.uint8)
        ends, sizes = [0], []
        for picture in _decoded(paths):
            if ends[-1] + picture.nbytes > limit:
                break
            pixels[ends[-1] : ends[-1] + picture.nbytes] = picture.ravel()
            ends.append(ends[-1] + picture.nbytes)
            sizes.append(picture.shape[:2])
        pixels.flags.writeable = False
        made = cls(pixels, np.array(ends), np.array(sizes, dtype=np.int64).reshape(-1, 2))
        logger.info(
            f"UNSUP.CACHE_IMAGES {budget}: {len(made)} of {len(paths)} images kept decoded,"
            f" {made.num_bytes / MEBIBYTE:.1f} MiB, in {time.perf_counter() - start:.1f} s"
            + ("" if len(made) == len(paths) else "; the others are decoded every time")
        )
        return made


def _decoded(paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Decode in order, by threads: decoders release the lock. In chunks, to hold few in memory."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(decode, paths[start : start + _CHUNK])


def _check_room(paths: Sequence[str], budget: int, limit: int) -> None:
    """Check that the cache fits into the free memory, estimated from 16 images."""
    some = paths[:: max(1, len(paths) // 16)]
    wanted = min(budget * MEBIBYTE, len(paths) * sum(decode(p).nbytes for p in some) // len(some))
    if wanted > limit:
        raise ValueError(
            f"UNSUP.CACHE_IMAGES must fit into the memory that is free, {limit // MEBIBYTE} MiB,"
            f" got {budget}: {len(paths)} images would take {wanted // MEBIBYTE} MiB"
        )


def _free_bytes() -> int:
    """Return nine tenths of the free memory (that of the container if less); 2^40 if unknown."""
    free = 2**40
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    for limit, used in _LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return max(0, free * 9 // 10)
