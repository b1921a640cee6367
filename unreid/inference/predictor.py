"""Pictures in, unit features out, by the model of a run.

    predictor = Predictor.from_run("runs/market")
    features = predictor(["a.jpg", Image.open("b.png"), array])  # (3, D)
    similarity = features @ features.T

Notation: N pictures, B of a batch, D channels, H x W pixels.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from fastreid.modeling.meta_arch import build_model
from PIL import Image
from torch import Tensor, nn

from unreid import compat
from unreid.checks import check_integer
from unreid.config import load_config
from unreid.data.images import UnreadableImageError
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.engine.extract import progress
from unreid.inference.fingerprint import fingerprint
from unreid.inference.pixels import Picture, as_rgb
from unreid.reading.run_folder import run_files

#: Threads that decode and resize: Pillow releases the lock for both.
_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Embedded:
    """Features of files.

    Attributes:
        features: (N', D) float32 unit rows of the files that could be read.
        kept: (N',) int64, which of the given files they are, ascending.
        bad: File -> why it could not be read.
    """

    features: np.ndarray
    kept: np.ndarray
    bad: dict[str, str]


class Predictor:
    """The test-time half of a run: its transforms, its network, features of unit length.

    Args:
        cfg: A config, as :func:`unreid.config.load_config` gives it.
        model: ``{"images": (B, 3, H, W) in 0..255} -> (B, D)`` in evaluation; set to it here.
        name: What to call the model in messages: the file of its weights.
        batch_size: Pictures in one forward pass; None takes ``TEST.IMS_PER_BATCH``.
        flip: Average with the mirror image's feature; None takes ``UNSUP.EXTRACT_FLIP``, so that
            features are those the run's labels were made of.

    Attributes:
        fingerprint: See :func:`unreid.inference.fingerprint.fingerprint`.
        size: (H, W) that pictures are brought to.
    """

    def __init__(
        self, cfg: Any, model: nn.Module, *, name: str, batch_size: int | None = None,
        flip: bool | None = None,
    ) -> None:
        compat.rebind()
        self.cfg = cfg
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.batch_size = check_integer(
            "batch_size", cfg.TEST.IMS_PER_BATCH if batch_size is None else batch_size, 1)
        self.flip = bool(cfg.UNSUP.EXTRACT_FLIP) if flip is None else flip
        self.transform = build_transforms(cfg, is_train=False)
        self.size: tuple[int, int] = _size(cfg)
        self.fingerprint = fingerprint(cfg, model, flip=self.flip)
        self._num_features: int | None = None

    @classmethod
    def from_run(cls, folder: str | os.PathLike[str], *, weights: str = "",
                 device: str = "", **options: Any) -> Predictor:
        """The model that a run ended with.

        Args:
            folder: An ``OUTPUT_DIR``: config.yaml and model_final.pth are taken from it.
            weights: Another file of weights, such as ``folder/model_selected.pth``.
            device: ``"cpu"``, ``"cuda"``, ...; "" takes the run's, or the CPU without a GPU.
            options: ``batch_size``, ``flip``: see the class.

        Raises:
            FileNotFoundError: no such folder, config or weights; says what there is.
            ValueError, KeyError: see :meth:`from_config`.
        """
        config, weights = run_files(folder, weights)
        return cls.from_config(config, weights, device=device, **options)

    @classmethod
    def from_config(
        cls, config_file: str | os.PathLike[str], weights: str | os.PathLike[str],
        opts: Sequence[str] = (), *, device: str = "", **options: Any,
    ) -> Predictor:
        """A config and a file of weights, loaded with ``weights_only=True``.

        Args:
            config_file: A project's yml, or a run's config.yaml.
            weights: A checkpoint of ours, or a state dict.
            opts: ``["INPUT.SIZE_TEST", "[256, 128]", ...]``.
            device, options: see :meth:`from_run`.

        Raises:
            FileNotFoundError: one of the files is not there.
            ValueError: weights of another model, a damaged file, a setting out of range.
            KeyError: a setting that does not exist.
        """
        weights = os.path.expanduser(os.fspath(weights))
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"weights {weights}: no such file")
        chosen = ["MODEL.DEVICE", device] if device else []
        # The start weights of training are not needed, and may not be on this machine.
        needless = ["MODEL.BACKBONE.PRETRAIN", "False"]
        cfg, _ = load_config(os.fspath(config_file), [*opts, *needless, *chosen])
        _check_device(cfg.MODEL.DEVICE)
        with torch.random.fork_rng(devices=[]):
            # What the weights lack is drawn alike every time: one file, one fingerprint.
            torch.manual_seed(cfg.UNSUP.SEED)
            model = build_model(cfg)
        with _training_parts_unmentioned():
            AtomicCheckpointer(model).load(weights)
        return cls(cfg, model, name=weights, **options)

    def with_flip(self, flip: bool) -> Predictor:
        """The same network, with or without the mirror image."""
        return Predictor(self.cfg, self.model, name=self.name, batch_size=self.batch_size,
                         flip=flip)

    @property
    def title(self) -> str:
        """The absolute name of the weights, and what else tells models of one file apart."""
        height, width = self.size
        return f"{os.path.abspath(self.name)} at {height}x{width}{' with flip' * self.flip}"

    @property
    def num_features(self) -> int:
        """D."""
        if self._num_features is None:
            height, width = self.size
            self._num_features = self._forward(torch.zeros(1, 3, height, width)).shape[1]
        return self._num_features

    def __call__(self, images: Picture | Iterable[Picture]) -> np.ndarray:
        """Features of pictures, in their order.

        Args:
            images: One picture or any number of them, of any sizes: see
                :func:`unreid.inference.pixels.as_rgb`. Iterables are read a batch at a time.

        Returns:
            (N, D) float32, unit rows; (0, D) of nothing, (1, D) of one picture.

        Raises:
            TypeError, ValueError: what is no picture, by its number.
            FloatingPointError: the network gave a feature that is not finite.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)) or (
                isinstance(images, np.ndarray) and images.ndim < 4):
            images = [images]  # type: ignore[list-item]
        parts, done = [], 0
        for batch in _batches(images, self.batch_size):
            names = [f"images[{done + i}]" for i in range(len(batch))]
            tensors = [self.transform(as_rgb(name, image)) for name, image in zip(names, batch)]
            parts.append(self._checked(torch.stack(tensors), names))
            done += len(batch)
        return np.concatenate(parts) if parts else self._nothing()

    def embed_files(self, paths: Sequence[str], *, skip_bad: bool = False) -> Embedded:
        """Features of files, read ahead by threads, with a bar and an ETA on a terminal.

        Args:
            paths: N files.
            skip_bad: Leave out what cannot be read, and tell of it; else it is an error.

        Raises:
            UnreadableImageError: names the first file that cannot be read.
            FloatingPointError: names a file whose feature is not finite.
        """
        parts, kept, bad = [], [], {}
        with ThreadPoolExecutor(_READERS) as pool, \
                progress(None, "features", len(paths)) as bar:
            for start, tensors in self._read_ahead(pool, paths):
                rows = []
                for i, tensor in enumerate(tensors, start):
                    if isinstance(tensor, Tensor):
                        rows.append(i)
                    elif skip_bad:
                        bad[paths[i]] = str(tensor.__cause__)
                    else:
                        raise tensor
                if rows:
                    batch = torch.stack([t for t in tensors if isinstance(t, Tensor)])
                    parts.append(self._checked(batch, [paths[i] for i in rows]))
                    kept += rows
                bar.update(len(tensors))
        features = np.concatenate(parts) if parts else self._nothing()
        return Embedded(features, np.array(kept, dtype=np.int64), bad)

    def _read_ahead(
        self, pool: ThreadPoolExecutor, paths: Sequence[str]
    ) -> Iterator[tuple[int, list[Tensor | UnreadableImageError]]]:
        """(first index, a batch) while the next batch is being read."""
        def start(first: int) -> list[Any]:
            return [pool.submit(self._read, path) for path in paths[first:first + self.batch_size]]

        waiting = start(0)
        for first in range(0, len(paths), self.batch_size):
            current, waiting = waiting, start(first + self.batch_size)
            yield first, [future.result() for future in current]

    def _read(self, path: str) -> Tensor | UnreadableImageError:
        try:
            return self.transform(as_rgb(path, path))
        except UnreadableImageError as error:
            return error

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, self.num_features), dtype=np.float32)

    def _checked(self, images: Tensor, names: Sequence[str]) -> np.ndarray:
        features = self._forward(images)
        usable = torch.isfinite(features).all(dim=1) & (features != 0).any(dim=1)
        if not bool(usable.all()):
            raise FloatingPointError(
                f"the feature of {names[int((~usable).nonzero()[0])]} is not finite, or has no"
                f" length: {self.name} is of a training that diverged, or of another model"
            )
        return features.numpy()

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..255 -> (B, D) unit rows on the CPU, as the label step makes them."""
        features = self.model({"images": images})
        if self.flip:
            features = (features + self.model({"images": images.flip(3)})) / 2
        return torch.nn.functional.normalize(features.float()).cpu()


@contextlib.contextmanager
def _training_parts_unmentioned() -> Iterator[None]:
    """What only training needs (a camera adversary) is not in the model, and rightly so."""
    log = logging.getLogger("fastreid.unreid.checkpoint")

    def unusual(record: logging.LogRecord) -> bool:
        return "not in the model, left out" not in record.getMessage()

    log.addFilter(unusual)
    try:
        yield
    finally:
        log.removeFilter(unusual)


def _size(cfg: Any) -> tuple[int, int]:
    size = list(cfg.INPUT.CROP.SIZE if cfg.INPUT.CROP.ENABLED else cfg.INPUT.SIZE_TEST)
    if len(size) == 1:
        size *= 2
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"INPUT.SIZE_TEST must be [height, width] with both >= 1, got {size}:"
                         " pictures of several sizes make no batch")
    return size[0], size[1]


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here ({reason}); take cpu") from error


def _batches(images: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
