"""Worker processes: batches depend on their spec only, and all processes end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.projects.tiny_run import (
    BASELINE,
    Interrupted,
    assert_same_labels,
    interrupted_at_step,
    load_tiny,
    train_tiny,
)
from unreid.data.images import UnreadableImageError
from unreid.data.loader import (
    Batches,
    build_extraction_loader,
    build_train_loader,
    close_loaders,
)
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.data.worker import GRACE_SECONDS, seed_worker

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_workers_left() -> Any:
    yield
    close_loaders()
    assert multiprocessing.active_children() == []


@pytest.fixture
def images(synthetic_root: Path) -> UnlabelledImages:
    os.environ["FASTREID_DATASETS"] = str(synthetic_root)
    return load_training_images(["Market1501"])[0]


def config(**settings: object) -> Any:
    return load_tiny(BASELINE, **settings)[0]


def training(cfg: Any, images: UnlabelledImages, seed: int, num: int = 5) -> Batches:
    order = np.random.default_rng(seed).integers(0, len(images), (num, 8)).tolist()
    return build_train_loader(cfg, images, np.arange(len(images)) % 5, order, seed)


def pixels(batches: Any) -> torch.Tensor:
    return torch.cat([batch["images"] for batch in batches])


def processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def test_tensor__batches_do_not_depend_on_the_number_of_workers(
    images: UnlabelledImages,
) -> None:
    made = []
    for workers in (0, 1, 2):
        cfg = config(INPUT__BACKEND="tensor", DATALOADER__NUM_WORKERS=workers)
        made.append([pixels(training(cfg, images, seed)) for seed in (4, 5)])
    for first, second in made:
        assert torch.equal(first, made[0][0]) and torch.equal(second, made[0][1])
    assert not torch.equal(*made[0])


@pytest.mark.parametrize("backend", ["pil", "tensor"])
def test_epoch__does_not_depend_on_the_epochs_before(
    backend: str, images: UnlabelledImages
) -> None:
    """A resumed run starts new workers; in the uninterrupted run workers persist."""
    cfg = config(INPUT__BACKEND=backend, DATALOADER__NUM_WORKERS=2)
    pixels(build_extraction_loader(cfg, images))
    pixels(training(cfg, images, 1))
    next(iter(training(cfg, images, 2)))  # not read to the end
    after_others = pixels(training(cfg, images, 3))
    close_loaders()
    assert torch.equal(pixels(training(cfg, images, 3)), after_others)


def test_extraction__of_both_backends_is_the_same_within_a_level(images: UnlabelledImages) -> None:
    pil, tensor = (
        pixels(build_extraction_loader(config(INPUT__BACKEND=b), images)) for b in ("pil", "tensor")
    )
    assert pil.dtype == torch.float32 and tensor.dtype == torch.uint8
    assert float((pil - tensor).abs().max()) <= 1


def test_parts__of_the_extraction_are_the_batches_of_the_whole(images: UnlabelledImages) -> None:
    whole = build_extraction_loader(config(TEST__IMS_PER_BATCH=16), images)
    parts = [[b["indices"].tolist() for b in whole.part(rank, 3)] for rank in range(3)]
    batches = [b["indices"].tolist() for b in whole]
    assert len(whole) == len(batches) == 5
    assert [parts[i % 3][i // 3] for i in range(5)] == batches
    assert [i for batch in batches for i in batch] == list(range(72))


def test_concurrent_epoch__has_temporary_workers(
    images: UnlabelledImages,
) -> None:
    cfg = config(INPUT__BACKEND="tensor", DATALOADER__NUM_WORKERS=1)
    wanted = pixels(training(cfg, images, 0))
    first = iter(training(cfg, images, 0))
    some = [next(first)]
    before = processes()
    assert len(pixels(build_extraction_loader(cfg, images))) == 72
    gc.collect()
    assert processes() == before
    assert torch.equal(pixels([*some, *first]), wanted)


def test_other_image_list__replaces_the_workers(images: UnlabelledImages) -> None:
    cfg = config(DATALOADER__NUM_WORKERS=2)
    for _ in range(3):
        list(build_extraction_loader(cfg, images.subset(np.arange(20))))
        assert len(processes()) == 2


def test_workers__keep_running_after_sigint_and_sigterm(
    images: UnlabelledImages,
) -> None:
    cfg = config(DATALOADER__NUM_WORKERS=2)
    epoch_iterator = iter(training(cfg, images, 0, num=20))
    next(epoch_iterator)
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in processes():
            os.kill(pid, number)
    assert len(list(epoch_iterator)) == 19


def test_killed_worker__ends_the_epoch_with_an_error(images: UnlabelledImages) -> None:
    cfg = config(DATALOADER__NUM_WORKERS=1)
    epoch_iterator = iter(training(cfg, images, 0, num=50))
    next(epoch_iterator)
    (pid,) = processes()
    with pytest.raises(RuntimeError, match=r"ended unexpectedly|DataLoader worker"):
        os.kill(pid, signal.SIGKILL)
        # torch raises from a signal handler, at any line of the main process: wait for it here.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        list(epoch_iterator)


@pytest.mark.parametrize("workers", [0, 1])
def test_closed_loader__ends_a_running_epoch_with_an_error(
    images: UnlabelledImages, workers: int
) -> None:
    epoch_iterator = iter(training(config(DATALOADER__NUM_WORKERS=workers), images, 0))
    next(epoch_iterator)
    close_loaders()
    with pytest.raises(RuntimeError, match="closed before the last batch"):
        next(epoch_iterator)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image__is_named_without_a_traceback_of_the_worker(
    workers: int, images: UnlabelledImages, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8")
    broken = UnlabelledImages((str(bad), *images.paths[1:]), images.camids, images.cameras, "/")
    cfg = config(DATALOADER__NUM_WORKERS=workers)
    with pytest.raises(UnreadableImageError) as error:
        list(build_extraction_loader(cfg, broken))
    assert str(bad) in str(error.value) and "Traceback" not in str(error.value)
    # The same workers still return other batches.
    order = [[3, 4], [5, 6]]
    assert len(list(build_train_loader(cfg, broken, np.zeros(72, np.int64), order, 0))) == 2


def test_seeds__equal_those_of_a_new_worker_of_torch() -> None:
    """With INPUT.BACKEND pil, batches equal those of new workers in every epoch."""

    class RandomNumbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> tuple[float, float, float]:
            return random.random(), float(torch.rand(())), float(np.random.rand())  # noqa: NPY002

        def __len__(self) -> int:
            return 2

    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        RandomNumbers(), num_workers=2, generator=generator, multiprocessing_context="fork"
    )
    iterator = iter(loader)
    base = iterator._base_seed
    theirs = [tuple(float(v) for v in item) for item in iterator]
    ours = []
    for worker in range(2):
        seed_worker(base, worker)
        ours.append(RandomNumbers()[0])
    assert np.allclose(ours, theirs, rtol=1e-6)


def test_exit__ends_workers_of_a_loader_that_is_still_referenced(
    images: UnlabelledImages, synthetic_root: Path
) -> None:
    """Otherwise multiprocessing sends SIGTERM, which workers defer, and waits for them."""
    code = (
        "import numpy as np\n"
        "from tests.projects.tiny_run import BASELINE, load_tiny\n"
        "from unreid.data.loader import build_train_loader\n"
        "from unreid.data.unlabelled import load_training_images\n"
        "images = load_training_images(['Market1501'])[0]\n"
        "cfg = load_tiny(BASELINE, DATALOADER__NUM_WORKERS=2)[0]\n"
        "held = iter(build_train_loader(cfg, images, np.zeros(72, np.int64), [[1, 2]] * 9, 0))\n"
        "next(held)\n"
        "print('end', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "FASTREID_DATASETS": str(synthetic_root)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"end\n"
    started = time.monotonic()
    assert process.wait(timeout=GRACE_SECONDS - 5) == 0
    assert time.monotonic() - started < GRACE_SECONDS - 5


def test_resumed_training_with_other_workers__has_the_same_labels(
    synthetic_root: Path, tmp_path: Path
) -> None:
    settings = {"INPUT__BACKEND": "tensor", "UNSUP__CACHE_IMAGES": 8, "DATASETS__TESTS": "()"}
    train_tiny(BASELINE, synthetic_root, tmp_path / "whole", **settings)
    settings["DATALOADER__NUM_WORKERS"] = 2
    with interrupted_at_step(3), pytest.raises(Interrupted):
        train_tiny(BASELINE, synthetic_root, tmp_path / "stopped", **settings)
    train_tiny(BASELINE, synthetic_root, tmp_path / "stopped", resume=True, **settings)
    assert_same_labels(tmp_path / "whole", tmp_path / "stopped")
