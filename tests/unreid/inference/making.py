"""Small runs and folders of random images for the tests of inference and its commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fastreid.modeling.meta_arch import build_model
from PIL import Image

from tests.projects.tiny_run import load_tiny
from unreid.engine.checkpoint import AtomicCheckpointer

CALR = Path("projects/CALR/configs/market.yml")
SPHERE = Path("projects/SphereCluster/configs/market.yml")
PAIRS = Path("projects/PseudoPair/configs/market.yml")


def make_run(folder: Path, config: Path = CALR, seed: int = 0, **settings: object) -> Path:
    """Write the files of a run (config.yaml, model_final.pth) with random weights.

    Batch norms have the statistics of a few images, so that features of different images differ.
    """
    folder.mkdir(parents=True)
    cfg, _ = load_tiny(config, folder, **settings)
    (folder / "config.yaml").write_text(cfg.dump())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(cfg)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        momenta = [m.momentum for m in norms]
        rng = np.random.default_rng(seed)
        arrays = np.stack([np.asarray(draw(rng)) for _ in range(16)])
        images = torch.from_numpy(arrays).permute(0, 3, 1, 2).float()
        for module in norms:
            module.momentum = 1.0
        with torch.no_grad():
            model.train().heads(model.backbone(model.normalized(images)))
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
    memory = getattr(model, "memory", None)
    if hasattr(memory, "centroids"):  # a run ends with a memory of some size
        memory.reset(torch.nn.functional.normalize(torch.ones(3, memory.num_features)))
    AtomicCheckpointer(model, str(folder)).save("model_final")
    return folder


def draw(rng: np.random.Generator, size: tuple[int, int] = (32, 64)) -> Image.Image:
    """Return a random image: three bands of random colours, width x height pixels."""
    array = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for band in np.array_split(np.arange(size[1]), 3):
        array[band] = rng.integers(0, 256, 3)
    noise = rng.integers(-20, 21, array.shape)
    return Image.fromarray(np.clip(array + noise, 0, 255).astype(np.uint8))


def fill(folder: Path, names: Sequence[str], seed: int = 0) -> list[Path]:
    """Write a random image under each name."""
    rng = np.random.default_rng(seed)
    paths = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(rng).save(path)
        paths.append(path)
    return paths


def truncate(path: Path) -> None:
    """Truncate a file to half its size."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
