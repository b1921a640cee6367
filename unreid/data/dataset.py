"""The dataset and the collate function of every batch: training, extraction and test.

Both run in a worker process, or in the main process where there is none. A :class:`BatchSpec` says
all that a batch depends on; neither needs to remember the batch before.

Notation: N images, B images of a batch.
"""

from __future__ import annotations

import contextlib
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
from unreid.data.images import UnreadableImageError, decode
from unreid.data.worker import GlobalGenerators, seed_worker


class BatchSpec(NamedTuple):
    """All that one batch depends on.

    Attributes:
        indices: B places in the image list.
        labels: B labels of a training batch; None selects the test transforms.
        seed: Of the epoch.
        number: Of the batch in its epoch.
        epoch: Counts the epochs of one loader, extractions included.
    """

    indices: list[int]
    labels: list[int] | None
    seed: int
    number: int
    epoch: int


class PackedStrings:
    """N strings in two arrays.

    Forked workers copy the pages of a list of strings, because every access counts a reference:
    1 GB per worker for 10 million paths.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0] + [len(e) for e in encoded])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        string = self._bytes[self._ends[index] : self._ends[index + 1]]
        return string.tobytes().decode("utf-8", "surrogateescape")

    def unpacked(self) -> list[str]:
        """Return a list of all N."""
        return [self[i] for i in range(len(self))]


class ImageDataset(Dataset):
    """Decoded images of N files.

    Args:
        paths: N files.
        fields: name -> N integers; each becomes an int64 entry of the batches.

    Attributes:
        cache: Images that need not be decoded again, or None.
    """

    def __init__(self, paths: Sequence[str], **fields: Sequence[int] | np.ndarray) -> None:
        self.paths = PackedStrings(paths)
        self.fields = {name: np.asarray(values, np.int64) for name, values in fields.items()}
        self.cache: DecodedImages | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return (H, W, 3) uint8."""
        cached = self.cache.get(index) if self.cache is not None else None
        return decode(self.paths[index]) if cached is None else cached

    def __getitems__(
        self, spec: BatchSpec
    ) -> tuple[BatchSpec, dict[str, Any] | UnreadableImageError]:
        """Return the batch with decoded images; torch calls this where it exists.

        An error is returned, because torch would raise it with the traceback of a worker.
        """
        try:
            batch: dict[str, Any] = {"images": [self[i] for i in spec.indices]}
        except UnreadableImageError as error:
            return spec, error
        batch["img_paths"] = [self.paths[i] for i in spec.indices]
        if spec.labels is not None:
            batch["targets"] = torch.tensor(spec.labels, dtype=torch.int64)
        for name, values in self.fields.items():
            batch[name] = torch.from_numpy(values[spec.indices])
        return spec, batch


class BatchTransform:
    """The collate function: transforms a batch of decoded images by ``INPUT.BACKEND``.

    ``tensor`` seeds the augmentation of each batch by (seed of the epoch, number of the batch).
    The transforms of ``pil`` are fast-reid's, which sample from the global generators of the
    process and may keep a state. They are built anew for every epoch; a worker is then seeded by
    (seed of the epoch, its number). Without workers they sample from a copy of the generators, so
    that a model that samples too (dropout) does not change the augmentation.

    Args:
        cfg: The config (``INPUT.*``).
    """

    def __init__(self, cfg: Any) -> None:
        compat.rebind()
        self._cfg = cfg
        self._epoch = -1
        self._transform: Any = None
        self._generators: GlobalGenerators | None = None

    def __call__(
        self, read: tuple[BatchSpec, dict[str, Any] | UnreadableImageError]
    ) -> dict[str, Any] | UnreadableImageError:
        """Return the batch with images (B, 3, H, W) in 0..255: float32 of pil, uint8 of tensor."""
        spec, batch = read
        if isinstance(batch, UnreadableImageError):
            return batch
        if spec.epoch != self._epoch:
            self._start(spec)
        if self._cfg.INPUT.BACKEND == "pil":
            batch["images"] = self._by_fastreid(batch["images"])
        elif spec.labels is None:
            batch["images"] = self._transform(batch["images"])
        else:
            rng = np.random.default_rng([spec.seed, spec.number])
            batch["images"] = self._transform(batch["images"], rng)
        return batch

    def _start(self, spec: BatchSpec) -> None:
        self.end_epoch(self._epoch)
        self._epoch = spec.epoch
        training = spec.labels is not None
        if self._cfg.INPUT.BACKEND == "tensor":
            self._transform = (TrainTransform if training else TestTransform)(self._cfg)
            return
        self._transform = build_transforms(self._cfg, is_train=training)
        worker = get_worker_info()
        if worker is not None:
            seed_worker(spec.seed, worker.id)
        elif training:
            self._generators = GlobalGenerators()

    def _by_fastreid(self, images: list[np.ndarray]) -> torch.Tensor:
        with self._generators or contextlib.nullcontext():
            return default_collate([self._transform(Image.fromarray(image)) for image in images])

    def end_epoch(self, epoch: int) -> None:
        """Let the global generators go on from where the transforms of ``epoch`` left theirs."""
        if self._generators is not None and self._epoch == epoch:
            self._generators.restore()
            self._generators = None
