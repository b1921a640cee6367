"""Feature extraction with the model of a run: images to unit features.

    predictor = Predictor.from_run("runs/market")
    features = predictor(["a.jpg", Image.open("b.png"), array])  # (3, D)
    similarity = features @ features.T

Notation: N images, B images per batch, D channels, H x W pixels.
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
from unreid.cli import Progress
from unreid.config import load_config
from unreid.data.images import UnreadableImageError
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.inference.fingerprint import fingerprint
from unreid.inference.image_input import ImageInput, as_rgb
from unreid.reading.run_folder import run_files

#: Threads for decoding and resizing; Pillow releases the GIL for both.
_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Embedded:
    """Features of files.

    Attributes:
        features: (N', D) float32 unit rows of the readable files.
        kept: (N',) int64 positions of these files in the input, ascending.
        bad: Unreadable file -> reason.
    """

    features: np.ndarray
    kept: np.ndarray
    bad: dict[str, str]


class Predictor:
    """Test transforms and network of a run; returns features of unit length.

    Args:
        cfg: Config of :func:`unreid.config.load_config`.
        model: ``{"images": (B, 3, H, W) in 0..255} -> (B, D)``; set to evaluation mode.
        name: Name of the model in messages: its weight file.
        batch_size: Images per forward pass; None uses ``TEST.IMS_PER_BATCH``.
        flip: Horizontal-flip test-time augmentation; None uses ``UNSUP.EXTRACT_FLIP``, as in the
            label step of the run.

    Attributes:
        fingerprint: See :func:`unreid.inference.fingerprint.fingerprint`.
        size: (H, W) that images are resized to.
    """

    def __init__(
        self,
        cfg: Any,
        model: nn.Module,
        *,
        name: str,
        batch_size: int | None = None,
        flip: bool | None = None,
    ) -> None:
        compat.rebind()
        self.cfg = cfg
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.batch_size = check_integer(
            "batch_size", cfg.TEST.IMS_PER_BATCH if batch_size is None else batch_size, 1
        )
        self.flip = bool(cfg.UNSUP.EXTRACT_FLIP) if flip is None else flip
        self.transform = build_transforms(cfg, is_train=False)
        self.size: tuple[int, int] = _size(cfg)
        self.fingerprint = fingerprint(cfg, model, flip=self.flip)
        self._num_features: int | None = None

    @classmethod
    def from_run(
        cls, folder: str | os.PathLike[str], *, weights: str = "", device: str = "", **options: Any
    ) -> Predictor:
        """Return the predictor of a run's final model.

        Args:
            folder: ``OUTPUT_DIR`` with config.yaml and model_final.pth.
            weights: Another weight file, such as ``folder/model_selected.pth``.
            device: ``"cpu"``, ``"cuda"``, ...; "" uses the run's device, or the CPU without a GPU.
            **options: ``batch_size``, ``flip``: see the class.

        Raises:
            FileNotFoundError: Folder, config or weights do not exist; lists what exists.
            ValueError, KeyError: See :meth:`from_config`.
        """
        config, weights = run_files(folder, weights)
        return cls.from_config(config, weights, device=device, **options)

    @classmethod
    def from_config(
        cls,
        config_file: str | os.PathLike[str],
        weights: str | os.PathLike[str],
        opts: Sequence[str] = (),
        *,
        device: str = "",
        **options: Any,
    ) -> Predictor:
        """Return the predictor of a config and a weight file, loaded with ``weights_only=True``.

        Args:
            config_file: The yml of a project, or the config.yaml of a run.
            weights: A checkpoint of a run, or a state dict.
            opts: Config overrides, such as ``["INPUT.SIZE_TEST", "[256, 128]"]``.
            device: See :meth:`from_run`.
            **options: See :meth:`from_run`.

        Raises:
            FileNotFoundError: One of the files does not exist.
            ValueError: The weights do not fit the model, the file is damaged, or a setting is out
                of range.
            KeyError: A setting does not exist.
        """
        weights = os.path.expanduser(os.fspath(weights))
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"weights {weights}: no such file")
        chosen = ["MODEL.DEVICE", device] if device else []
        # Pre-trained weights of the backbone are not needed and may not exist on this machine.
        no_pretrain = ["MODEL.BACKBONE.PRETRAIN", "False"]
        cfg, _ = load_config(os.fspath(config_file), [*opts, *no_pretrain, *chosen])
        _check_device(cfg.MODEL.DEVICE)
        with torch.random.fork_rng(devices=[]):
            # Parameters missing in the file get the same values each time, so that the
            # fingerprint is constant.
            torch.manual_seed(cfg.UNSUP.SEED)
            model = build_model(cfg)
        with _ignore_training_only_weights():
            AtomicCheckpointer(model).load(weights)
        return cls(cfg, model, name=weights, **options)

    def with_flip(self, flip: bool) -> Predictor:
        """Return a predictor of the same network with or without flip augmentation."""
        return Predictor(
            self.cfg, self.model, name=self.name, batch_size=self.batch_size, flip=flip
        )

    @property
    def title(self) -> str:
        """Absolute path of the weights, image size and flip augmentation."""
        height, width = self.size
        return f"{os.path.abspath(self.name)} at {height}x{width}{' with flip' * self.flip}"

    @property
    def num_features(self) -> int:
        """Number of channels D."""
        if self._num_features is None:
            height, width = self.size
            self._num_features = self._forward(torch.zeros(1, 3, height, width)).shape[1]
        return self._num_features

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Return features of images, in the given order.

        Args:
            images: One image or an iterable of images of any sizes: see
                :func:`unreid.inference.image_input.as_rgb`. Iterables are consumed batch by batch.

        Returns:
            (N, D) float32, unit rows; (0, D) for no image, (1, D) for one image.

        Raises:
            TypeError, ValueError: An input is not an image; names its position.
            FloatingPointError: A feature is not finite.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        ):
            images = [images]  # type: ignore[list-item]
        parts, done = [], 0
        for batch in _batches(images, self.batch_size):
            names = [f"images[{done + i}]" for i in range(len(batch))]
            tensors = [self.transform(as_rgb(name, image)) for name, image in zip(names, batch)]
            parts.append(self._checked(torch.stack(tensors), names))
            done += len(batch)
        return np.concatenate(parts) if parts else self._no_features()

    def embed_files(self, paths: Sequence[str], *, skip_bad: bool = False) -> Embedded:
        """Return features of files, prefetched by threads; a terminal shows the remaining time.

        Args:
            paths: N files.
            skip_bad: Leave out unreadable files and list them; otherwise they are an error.

        Raises:
            UnreadableImageError: A file cannot be read; names the first one.
            FloatingPointError: A feature is not finite; names the file.
        """
        parts, kept, bad = [], [], {}
        bar = Progress(len(paths), "features: image", terminal_only=True)
        with ThreadPoolExecutor(_READERS) as pool, bar:
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
                bar.step(len(tensors))
        features = np.concatenate(parts) if parts else self._no_features()
        return Embedded(features, np.array(kept, dtype=np.int64), bad)

    def _read_ahead(
        self, pool: ThreadPoolExecutor, paths: Sequence[str]
    ) -> Iterator[tuple[int, list[Tensor | UnreadableImageError]]]:
        """Yield (first index, batch) while threads read the next batch."""

        def start(first: int) -> list[Any]:
            return [
                pool.submit(self._read, path) for path in paths[first : first + self.batch_size]
            ]

        waiting = start(0)
        for first in range(0, len(paths), self.batch_size):
            current, waiting = waiting, start(first + self.batch_size)
            yield first, [future.result() for future in current]

    def _read(self, path: str) -> Tensor | UnreadableImageError:
        try:
            return self.transform(as_rgb(path, path))
        except UnreadableImageError as error:
            return error

    def _no_features(self) -> np.ndarray:
        return np.zeros((0, self.num_features), dtype=np.float32)

    def _checked(self, images: Tensor, names: Sequence[str]) -> np.ndarray:
        features = self._forward(images)
        usable = torch.isfinite(features).all(dim=1) & (features != 0).any(dim=1)
        if not bool(usable.all()):
            raise FloatingPointError(
                f"the feature of {names[int((~usable).nonzero()[0])]} is not finite or is zero:"
                f" {self.name} is from a diverged training or from another model"
            )
        return features.numpy()

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        """Return (B, D) unit features on the CPU for images (B, 3, H, W) in 0..255."""
        features = self.model({"images": images})
        if self.flip:
            features = (features + self.model({"images": images.flip(3)})) / 2
        return torch.nn.functional.normalize(features.float()).cpu()


@contextlib.contextmanager
def _ignore_training_only_weights() -> Iterator[None]:
    """Suppress log lines about weights that only training uses, such as a camera adversary."""
    log = logging.getLogger("fastreid.unreid.checkpoint")

    def unusual(record: logging.LogRecord) -> bool:
        return "not in the model, ignored" not in record.getMessage()

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
        raise ValueError(
            f"INPUT.SIZE_TEST must be [height, width] with both >= 1, got {size}:"
            " all images of a batch must have one size"
        )
    return size[0], size[1]


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} is not available ({reason}); use cpu") from error


def _batches(images: Iterable[ImageInput], size: int) -> Iterator[list[ImageInput]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
