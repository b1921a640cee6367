"""Configs, feature banks, batches and networks for the tests of SphereCluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.modeling.meta_arch import build_model

from tests.projects.tiny_run import load_tiny
from unreid.engine.run import with_dataset_size
from unreid.structures import FeatureBank

CONFIGS = Path("projects/SphereCluster/configs")
MARKET = CONFIGS / "market.yml"
BUC = CONFIGS / "predecessors" / "buc.yml"


#: Settings when no config file is given: SphereCluster's merging, triplet loss on all clusters.
PLAIN = {"SPHERECLUSTER__SOFTMAX__ENABLED": False, "SPHERECLUSTER__MIN_CLUSTER_SIZE": 1}


def config(path: Path | None = None, **settings: object) -> Any:
    """Return a tiny config; the keyword ``PASSES=3`` sets ``SPHERECLUSTER.PASSES`` to 3."""
    known = {k if "__" in k else f"SPHERECLUSTER__{k}": v for k, v in settings.items()}
    if path is None:
        path, known = MARKET, {**PLAIN, **known}
    return load_tiny(path, **known)[0]


def people(num_people: int, each: int, *, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    """Return (num_people * each, 16) unit rows, sorted by person."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_people, 16))
    rows = np.repeat(centres, each, axis=0) + spread * rng.normal(size=(num_people * each, 16))
    return unit(rows)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows divided by their norms, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def bank(features: np.ndarray) -> FeatureBank:
    """Return a feature bank with one camera."""
    return FeatureBank(features, np.zeros(len(features), np.int64))


def network(path: Path | None = None, *, images: int = 8, **settings: object) -> Any:
    """Return a tiny model for a training set of the given number of images."""
    cfg = with_dataset_size(config(path, **settings), num_cameras=3, num_images=images)
    torch.manual_seed(0)
    return build_model(cfg)


def batch(targets: list[int], seed: int = 0) -> dict[str, Any]:
    """Return a batch of random images with these labels."""
    generator = torch.Generator().manual_seed(seed)
    count = len(targets)
    return {
        "images": 255 * torch.rand(count, 3, 64, 32, generator=generator),
        "targets": torch.tensor(targets),
        "camids": torch.zeros(count, dtype=torch.int64),
        "indices": torch.arange(count),
        "img_paths": ["?"] * count,
    }
