"""Shared setup and fixtures: thread limits, a seeded generator, small datasets."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# A shell starts background jobs with SIGINT ignored, and child processes inherit that. The tests of
# interrupts need the default handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Must be set before numpy, faiss and torch start their thread pools. ``make test`` runs two
# processes, so each one gets a single thread.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, str(THREADS))

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(THREADS)
# The same examples in every run; no deadline, because timings vary with machine load.
settings.register_profile("unreid", deadline=None, derandomize=True)
settings.load_profile("unreid")


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with the same seed in every test."""
    return np.random.default_rng(20240913)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images next to the checkout; skip if it does not exist."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return folder


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a small dataset in Market-1501's layout; tests must not modify it."""
    from unreid.data.synthetic import generate_dataset

    root = tmp_path_factory.mktemp("datasets")
    generate_dataset(root, num_train_ids=8, num_test_ids=6, num_cameras=3, images_per_id=9, seed=0)
    return root


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Restore handlers and settings of fast-reid's logger, which a training run changes."""
    log = logging.getLogger("fastreid")
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    yield
    for handler in [h for h in log.handlers if h not in handlers]:
        log.removeHandler(handler)
        if isinstance(handler, logging.FileHandler):
            handler.close()
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(autouse=True)
def no_datasets_from_outside() -> Iterator[None]:
    """Unset FASTREID_DATASETS for each test, and restore it afterwards."""
    before = os.environ.pop("FASTREID_DATASETS", None)
    yield
    os.environ.pop("FASTREID_DATASETS", None)
    if before is not None:
        os.environ["FASTREID_DATASETS"] = before


@pytest.fixture
def msmt17(tmp_path: Path) -> Path:
    """Return the root of a dataset in MSMT17's layout, with 6 train, 2 val and 4 test images."""
    main = tmp_path / "MSMT17_V1"
    lists = {
        "train": [(0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 3)],
        "val": [(0, 3), (2, 1)],
        "query": [(0, 1), (1, 2)],
        "gallery": [(0, 2), (1, 1)],
    }
    for name, items in lists.items():
        folder = "train" if name in ("train", "val") else "test"
        lines = []
        for number, (pid, camera) in enumerate(items):
            path = f"{pid:04d}/{pid:04d}_{name}{number}_{camera:02d}_0303morning.jpg"
            (main / folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 16), (40 * camera, 60 * pid, 0)).save(main / folder / path)
            lines.append(f"{path} {pid}\n")
        (main / f"list_{name}.txt").write_text("".join(lines))
    os.environ["FASTREID_DATASETS"] = str(tmp_path)
    return tmp_path
