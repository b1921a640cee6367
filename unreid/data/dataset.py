"""The dataset and the collate function of every batch: training, extraction and test.

Both run in the worker processes, or in the main process without workers. A batch depends on its
:class:`BatchSpec` only, not on earlier batches (with ``INPUT.BACKEND tensor``; for ``pil`` see
:class:`BatchTransform`).

Notation: N images, B images per batch.
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
    """Specification of one batch: all that its contents depend on.

    Attributes:
        indices: B indices into the image list.
        labels: B labels of a training batch; None selects the test transforms.
        seed: Seed of the epoch.
        number: Position of the batch in its epoch, from 0.
        epoch: Number of the epoch of this loader; feature extraction counts as an epoch.
    """

    indices: list[int]
    labels: list[int] | None
    seed: int
    number: int
    epoch: int


class PackedStrings:
    """A read-only sequence of N strings, stored in two arrays.

    Reading a list of strings in a forked worker changes reference counts, so that the worker copies
    the memory pages: 1 GB per worker for 10 million paths.

    Args:
        strings: The N strings.
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
        """Return the strings as a list."""
        return [self[i] for i in range(len(self))]


class ImageDataset(Dataset):
    """Dataset of N image files.

    Args:
        paths: N image files.
        **fields: Name -> N integers; each becomes an int64 entry of the batches.

    Attributes:
        cache: Decoded images, or None.
    """

    def __init__(self, paths: Sequence[str], **fields: Sequence[int] | np.ndarray) -> None:
        self.paths = PackedStrings(paths)
        self.fields = {name: np.asarray(values, np.int64) for name, values in fields.items()}
        self.cache: DecodedImages | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image ``index`` as (H, W, 3) uint8."""
        cached = self.cache.get(index) if self.cache is not None else None
        return decode(self.paths[index]) if cached is None else cached

    def __getitems__(
        self, spec: BatchSpec
    ) -> tuple[BatchSpec, dict[str, Any] | UnreadableImageError]:
        """Return the batch of a spec with decoded images; called by ``DataLoader`` if defined.

        An ``UnreadableImageError`` is returned instead of raised: torch would add the traceback of
        the worker to its message.
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
    """Collate function: apply the transforms of ``INPUT.BACKEND`` to a batch of decoded images.

    With ``tensor``, the augmentation of each batch is seeded by (seed of the epoch, number of the
    batch). With ``pil``, the transforms are those of fast-reid, which sample from the global random
    generators of the process and may have state. They are built at the start of every epoch, and
    each worker is then seeded by (seed of the epoch, worker id). Without workers they sample from a
    copy of the global generators, so that random numbers used by the model (dropout) do not change
    the augmentation.

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
        """Return the batch with images (B, 3, H, W): float32 (pil) or uint8 (tensor) in 0..255."""
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
        """Set the global generators to the state after the last transform of ``epoch``."""
        if self._generators is not None and self._epoch == epoch:
            self._generators.restore()
            self._generators = None
