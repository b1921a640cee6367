"""Makes batches out of requests: in a worker process, or where there is none in the main one.

A request says all that a batch follows from. Who serves it needs no memory of the request before,
except with INPUT.BACKEND pil: fast-reid's transforms draw from the process' own generators, which
therefore start anew with every pass, as those of a fresh worker did.

Notation: N images, B of a batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from PIL import Image
from torch.utils.data import Dataset, default_collate, get_worker_info

from unreid import compat
from unreid.data.augment import TestTransform, TrainTransform
from unreid.data.cache import DecodedImages
from unreid.data.decode import decode
from unreid.data.images import UnreadableImageError, load_image


class Request(NamedTuple):
    """One batch of a pass.

    Attributes:
        indices: B places in the list of images.
        targets: B labels of a training batch; None asks for the transforms of the test.
        seed: Of the pass.
        number: Of the batch in its pass.
        turn: Of the pass; no two of one maker have the same.
    """

    indices: list[int]
    targets: list[int] | None
    seed: int
    number: int
    turn: int


class Strings:
    """N texts in two arrays.

    A list of texts is copied by and by into every forked worker, because looking at one counts a
    reference in it; of 10 million paths that is a gigabyte each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0] + [len(e) for e in encoded])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        text = self._bytes[self._ends[index] : self._ends[index + 1]]
        return text.tobytes().decode("utf-8", "surrogateescape")


class BatchMaker(Dataset):
    """Request -> {images, img_paths, targets, camids, indices}, those of a training batch.

    Args:
        cfg: The config (``INPUT.*``).
        paths: N files.
        camids: (N,) int64.
        cache: Images that are decoded already.
    """

    def __init__(
        self, cfg: Any, paths: Sequence[str], camids: np.ndarray, cache: DecodedImages | None
    ) -> None:
        compat.rebind()
        self._cfg = cfg
        self._paths = Strings(paths)
        self._camids = camids
        self._cache = cache
        self._turn = -1
        self._transform: Any = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitems__(self, request: Request) -> dict[str, Any] | UnreadableImageError:
        """The batch; or the error, for the main process to raise without a worker's traceback."""
        if request.turn != self._turn:
            self._begin(request)
        paths = [self._paths[i] for i in request.indices]
        try:
            images = self._images(request, paths)
        except UnreadableImageError as error:
            return error
        batch: dict[str, Any] = {"images": images, "img_paths": paths}
        if request.targets is not None:
            batch["targets"] = torch.tensor(request.targets, dtype=torch.int64)
        batch["camids"] = torch.from_numpy(self._camids[request.indices])
        batch["indices"] = torch.tensor(request.indices, dtype=torch.int64)
        return batch

    def _begin(self, request: Request) -> None:
        """Of a pass: new transforms, since some have a memory, and what they draw from."""
        self._turn = request.turn
        training = request.targets is not None
        if self._cfg.INPUT.BACKEND == "tensor":
            self._transform = TrainTransform(self._cfg) if training else TestTransform(self._cfg)
            return
        self._transform = build_transforms(self._cfg, is_train=training)
        worker = get_worker_info()
        if worker is not None:
            seed_worker(request.seed, worker.id)

    def _images(self, request: Request, paths: list[str]) -> torch.Tensor:
        """(B, 3, H, W): float32 of fast-reid's transforms, uint8 of ours; in 0..255."""
        if self._cfg.INPUT.BACKEND == "pil":
            pictures = [self._picture(i, p) for i, p in zip(request.indices, paths)]
            return default_collate([self._transform(p) for p in pictures])
        pixels = [self._pixels(i, p) for i, p in zip(request.indices, paths)]
        if request.targets is None:
            return self._transform(pixels)
        return self._transform(pixels, np.random.default_rng([request.seed, request.number]))

    def _pixels(self, index: int, path: str) -> np.ndarray:
        found = self._cache.get(index) if self._cache is not None else None
        return decode(path) if found is None else found

    def _picture(self, index: int, path: str) -> Image.Image:
        found = self._cache.get(index) if self._cache is not None else None
        return load_image(path) if found is None else Image.fromarray(found)


def seed_worker(seed: int, worker: int) -> None:
    """Start the generators of this process as torch starts those of a new worker."""
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    sequence = np.random.SeedSequence([worker, seed & 0xFFFFFFFF, seed >> 32, 0])
    # What fast-reid's AugMix draws from.
    np.random.seed(sequence.generate_state(4))  # noqa: NPY002
