"""A tiny PseudoPair network, its labels and batches, for the tests in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.modeling.meta_arch import build_model

from tests.projects.tiny_run import load_tiny
from unreid.structures import FeatureBank, PseudoLabels, PseudoPairs

MARKET = Path("projects/PseudoPair/configs/market.yml")
CAMIDS = np.array([0, 1, 0, 0, 1, 2, 0, 1])
PAIRS = PseudoPairs(np.array([[0, 1], [2, 3], [2, 5]]), np.array([0.2, 0.1, 0.3], np.float32))


def network(config: Path = MARKET, **settings: object) -> Any:
    """Return a network with a few thousand weights; keywords are config settings."""
    cfg, _ = load_tiny(config, **settings)
    torch.manual_seed(0)
    return build_model(cfg)


def bank(model: Any, num: int = 8, seed: int = 0) -> FeatureBank:
    """Return random features with the dimension of the model's output."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num, model.memory.num_groups * model.memory.num_features))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return FeatureBank(features.astype(np.float32), np.resize(CAMIDS, num))


def labels(pairs: PseudoPairs | None = PAIRS, num: int = 8) -> PseudoLabels:
    """Return labels of two clusters, and the pairs."""
    return PseudoLabels(np.arange(num) % 2, pairs=pairs)


def batch(indices: list[int], seed: int = 0) -> dict[str, Any]:
    """Return a batch of random pixels for these image indices."""
    draw = torch.Generator().manual_seed(seed)
    images = 255 * torch.rand(len(indices), 3, 64, 32, generator=draw)
    return {
        "images": images,
        "indices": torch.tensor(indices),
        "targets": torch.zeros(len(indices), dtype=torch.long),
        "camids": torch.zeros(len(indices), dtype=torch.long),
    }
