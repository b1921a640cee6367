"""Images per second and core of decoding and transforms: ours, torchvision's and fast-reid's.

    python benchmarks/loading.py [--quick] [--images FOLDER]

Runs in one process with one thread and no worker. Processor seconds are measured, because they do
not depend on machine load. A batch has 64 images, as in training. The row of fast-reid uses its
dataset, transforms and collate function; its data loader requires CUDA.

Settings: size and transforms of PseudoPair's configs (flip, padding, colour jitter with hue,
affine, erasing), at 128 x 64 and 256 x 128; and those of extraction, which only resizes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

import unreid  # noqa: E402, F401
from unreid.config import load_config  # noqa: E402
from unreid.data.unlabelled import UnlabelledImages  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "market-dev"
CONFIG = ROOT / "projects" / "PseudoPair" / "configs" / "small" / "pairs.yml"
BATCH = 64
SIZES = ((128, 64), (256, 128))


def files(folder: str | None, limit: int) -> list[str]:
    """Return paths of images in ``folder``, of the shared data, or of synthetic images."""
    root = Path(folder) if folder else REAL
    found = sorted(str(p) for p in root.rglob("*.jpg"))
    if not found:
        from unreid.data.synthetic import generate_dataset

        root = Path(tempfile.mkdtemp())
        generate_dataset(
            root, num_train_ids=30, num_test_ids=2, num_cameras=3, images_per_id=9, seed=0
        )
        found = sorted(str(p) for p in root.rglob("*.jpg"))
    return found[:limit]


def config(size: Sequence[int], **settings: object) -> Any:
    """Return the small recipe of PseudoPair at ``size``."""
    pairs = {
        "MODEL.BACKBONE.PRETRAIN": False,
        "MODEL.DEVICE": "cpu",
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.SIZE_TRAIN": list(size),
        "INPUT.SIZE_TEST": list(size),
        "TEST.IMS_PER_BATCH": BATCH,
        **settings,
    }
    return load_config(str(CONFIG), [str(x) for pair in pairs.items() for x in pair])[0]


def batches_of(num: int) -> list[list[int]]:
    """Return random batches of ``num`` images; the last incomplete batch is dropped."""
    order = np.random.default_rng(0).permutation(num)
    return [part.tolist() for part in np.split(order[: num // BATCH * BATCH], num // BATCH)]


def rate(make: Callable[[], Iterable[Any]], repeats: int) -> float:
    """Return images per processor second: the best of several passes after a warm-up batch."""
    best = 0.0
    for _ in range(repeats):
        passed = iter(make())
        next(passed)
        start, images = time.process_time(), 0
        for batch in passed:
            images += len(batch)
        best = max(best, images / (time.process_time() - start))
    return best


def ours(cfg: Any, paths: list[str], train: bool) -> Callable[[], Iterable[Any]]:
    """Return an iterable of batches from the loaders of training and extraction."""
    from unreid.data.loader import build_extraction_loader, build_train_loader

    images = UnlabelledImages(tuple(paths), np.zeros(len(paths), np.int64), ("c",), "/")
    labels, order = np.zeros(len(paths), np.int64), batches_of(len(paths))

    def make() -> Iterable[Any]:
        loader: Any = build_train_loader(cfg, images, labels, order, 0)
        if not train:
            loader = build_extraction_loader(cfg, images)
        return (batch["images"] for batch in loader)

    return make


def per_image(one: Callable[[str], torch.Tensor], paths: list[str]) -> Callable[[], Iterable[Any]]:
    """Return an iterable of batches that are processed image by image and stacked."""
    order = batches_of(len(paths))
    return lambda: (torch.stack([one(paths[i]) for i in batch]) for batch in order)


def plain_v2(cfg: Any, train: bool) -> Callable[[str], torch.Tensor]:
    """Return the same transforms by torchvision's v2 on uint8 images decoded by torchvision."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import InterpolationMode, v2

    steps: list[Any] = [v2.Resize(cfg.INPUT.SIZE_TRAIN, InterpolationMode.BICUBIC, antialias=True)]
    if train:
        jitter = cfg.INPUT.CJ
        steps += [
            v2.Pad(cfg.INPUT.PADDING.SIZE),
            v2.RandomCrop(cfg.INPUT.SIZE_TRAIN),
            v2.RandomHorizontalFlip(),
            v2.RandomApply(
                [v2.ColorJitter(jitter.BRIGHTNESS, jitter.CONTRAST, jitter.SATURATION, jitter.HUE)],
                p=jitter.PROB,
            ),
            v2.RandomAffine(10, scale=(0.9, 1.1), shear=0.1),
            v2.RandomErasing(p=0.5, value=[124, 116, 104]),
        ]
    transform = v2.Compose(steps)
    return lambda path: transform(decode_jpeg(read_file(path), mode=ImageReadMode.RGB))


def fast_reid(cfg: Any, paths: list[str], train: bool) -> Callable[[], Iterable[Any]]:
    """Return an iterable of batches from fast-reid's dataset, transforms and collate function."""
    from fastreid.data.build import fast_batch_collator
    from fastreid.data.common import CommDataset
    from fastreid.data.transforms import build_transforms

    from unreid import compat

    compat.rebind()
    dataset = CommDataset([(p, 0, 0) for p in paths], build_transforms(cfg, is_train=train))
    order = batches_of(len(paths))
    return lambda: (fast_batch_collator([dataset[i] for i in batch])["images"] for batch in order)


def decoders(paths: list[str], repeats: int) -> None:
    """Measure decoding alone."""
    from fastreid.data.data_utils import read_image
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    from unreid.data.images import decode, jpeg_decoder, load_image

    name = "simplejpeg" if jpeg_decoder() is not None else "no simplejpeg: Pillow"
    print("| decoding | images/s per core |\n| --- | ---: |")
    for words, one in (
        (f"ours, INPUT.BACKEND tensor ({name})", decode),
        (
            "torchvision.io.decode_jpeg (deprecated)",
            lambda p: decode_jpeg(read_file(p), mode=ImageReadMode.RGB),
        ),
        ("ours, INPUT.BACKEND pil (Pillow)", load_image),
        ("fast-reid's read_image (Pillow)", lambda p: read_image(p, format="RGB")),
    ):
        made = rate(
            lambda one=one: ([one(paths[i]) for i in b] for b in batches_of(len(paths))), repeats
        )
        print(f"| {words} | {made:,.0f} |", flush=True)
    print()


def _micros(step: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    step(inputs[0])
    start = time.process_time()
    for one in inputs:
        step(one)
    return (time.process_time() - start) / len(inputs) * 1e6


def steps(paths: list[str]) -> None:
    """Measure single transforms on decoded images: Pillow (as in fast-reid), v2, and ours."""
    import torchvision.transforms as pillow
    from torchvision.transforms import v2

    from unreid.data.augment import (
        TrainTransform,
        affine_matrices,
        moved,
        resized,
        sample_parameters,
    )
    from unreid.data.images import decode
    from unreid.kernels import jitter_reference, kernel

    pixels = [decode(p) for p in paths[:256]]
    images = [pillow.functional.to_pil_image(p) for p in pixels]
    tensors = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in pixels]
    jitter = (kernel("jitter") or jitter_reference).color_jitter
    cfg, rng = config(pixels[0].shape[:2], **{"INPUT.CJ.PROB": 1.0}), np.random.default_rng(0)
    sampled = sample_parameters(cfg.INPUT, 1, rng)
    crop = TrainTransform(cfg)._crop
    matrix = affine_matrices((128, 64), *np.array([[5.0], [1.05], [0.05]]))[0]
    out, size = np.empty_like(pixels[0]), pixels[0].shape[:2]
    rows: dict[str, tuple[Any, Any, Any]] = {}
    rows["colour jitter"] = (
        pillow.ColorJitter(0.2, 0.2, 0.2, 0.1),
        v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
        lambda p: jitter(p.reshape(1, -1, 3), sampled.orders, sampled.factors),
    )
    rows["affine"] = (
        pillow.RandomAffine(10, scale=(0.9, 1.1), shear=0.1),
        v2.RandomAffine(10, scale=(0.9, 1.1), shear=0.1),
        lambda p: moved(p, matrix),
    )
    padding = [(t.Pad(5), t.RandomCrop(size), t.RandomHorizontalFlip()) for t in (pillow, v2)]
    rows["padding, crop, flip"] = (
        pillow.Compose(padding[0]),
        v2.Compose(padding[1]),
        lambda p: crop(out, p, 3, 6, True),
    )
    rows["to 256 x 128"] = (
        pillow.Resize((256, 128), pillow.InterpolationMode.BICUBIC),
        v2.Resize((256, 128), pillow.InterpolationMode.BICUBIC, antialias=True),
        lambda p: resized(p, (256, 128)),
    )
    print(f"| microseconds per image of {size[0]} x {size[1]} | Pillow | v2 on bytes | ours |")
    print("| --- | ---: | ---: | ---: |")
    for words, contenders in rows.items():
        took = [_micros(c, x) for c, x in zip(contenders, (images, tensors, pixels))]
        print(f"| {words} | " + " | ".join(f"{t:.0f}" for t in took) + " |", flush=True)
    print()


def starting(paths: list[str]) -> None:
    """Measure the time to start workers from a main process of 1.2 GB."""
    from unreid.data.loader import build_train_loader, close_loaders

    ballast = torch.ones(3 * 10**8)
    images = UnlabelledImages(tuple(paths), np.zeros(len(paths), np.int64), ("c",), "/")
    cfg = config((128, 64), **{"DATALOADER.NUM_WORKERS": 2})
    print("| two workers, with 1.2 GB in memory | ms of the main process per epoch |")
    print("| --- | ---: |")
    for words, keep in (("new ones every epoch", False), ("kept between epochs", True)):
        took = []
        for epoch in range(6):
            if not keep:
                close_loaders()
            labels = np.zeros(len(paths), np.int64)
            loader = build_train_loader(cfg, images, labels, batches_of(len(paths))[:2], epoch)
            start = time.process_time()
            batches = iter(loader)
            next(batches)
            took.append(time.process_time() - start)
            list(batches)
        print(f"| {words} | {1000 * float(np.median(took[1:])):.0f} |", flush=True)
    close_loaders()
    del ballast
    print()


def table(paths: list[str], size: tuple[int, int], train: bool, repeats: int) -> None:
    """Measure and print the table of one setting."""
    rows: list[tuple[str, Callable[[], Iterable[Any]]]] = []
    cached = {"UNSUP.CACHE_IMAGES": 4096}
    for backend in ("tensor", "pil"):
        cfg = config(size, **{"INPUT.BACKEND": backend})
        words = f"ours, INPUT.BACKEND {backend}"
        rows.append((words, ours(cfg, paths, train)))
        if train:
            cfg = config(size, **{"INPUT.BACKEND": backend, **cached})
            rows.append((f"{words}, UNSUP.CACHE_IMAGES", ours(cfg, paths, train)))
    cfg = config(size)
    rows += [
        ("torchvision v2 on bytes", per_image(plain_v2(cfg, train), paths)),
        ("fast-reid", fast_reid(cfg, paths, train)),
    ]
    made = {words: rate(make, repeats) for words, make in rows}
    title = "training" if train else "extraction"
    print(f"| {title}, {size[0]} x {size[1]} | images/s per core | x fast-reid |")
    print("| --- | ---: | ---: |")
    for words, value in made.items():
        print(f"| {words} | {value:,.0f} | {value / made['fast-reid']:.1f} |", flush=True)
    print()


def main() -> None:
    """Print one table per setting."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="few images, once")
    parser.add_argument("--images", help="a folder of JPEGs")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*decoding and encoding capabilities.*")
    torch.set_num_threads(1)
    paths = files(given.images, 192 if given.quick else 768)
    repeats = 1 if given.quick else 3
    print(
        f"{len(paths)} images, batches of {BATCH}, one thread; "
        f"torch {torch.__version__.split('+')[0]}\n"
    )
    decoders(paths, repeats)
    steps(paths)
    for size in SIZES:
        table(paths, size, True, repeats)
    table(paths, (256, 128), False, repeats)
    starting(paths)


if __name__ == "__main__":
    main()
