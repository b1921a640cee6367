"""Extract features of all training images: evaluation mode, no augmentation, in list order.

Notation: N images, D channels, W processes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from fastreid.evaluation.evaluator import inference_context
from torch import nn
from tqdm import tqdm

from unreid.contracts import ReIDModel
from unreid.data.loader import build_extraction_loader
from unreid.data.unlabelled import UnlabelledImages
from unreid.engine.checkpoint import unwrap
from unreid.engine.distributed import all_gather, all_gather_rows, rank, world_size
from unreid.structures import FeatureBank


def progress(iterable: Any, description: str, total: int | None = None) -> Any:
    """Wrap ``iterable`` in a progress bar; without output on ranks > 0 or without a terminal."""
    hidden = not sys.stderr.isatty() or rank() > 0
    return tqdm(iterable, description, total, leave=False, disable=hidden)


def indices_per_rank(num: int, batch_size: int, num_ranks: int) -> list[np.ndarray]:
    """Return the image indices of each rank: rank r extracts batches r, r + W, r + 2 W, ...

    Args:
        num: N.
        batch_size: Images per batch.
        num_ranks: W.
    """
    batches = np.arange(num) // batch_size
    return [np.flatnonzero(batches % num_ranks == r) for r in range(num_ranks)]


def extract(cfg: Any, model: nn.Module, images: UnlabelledImages) -> FeatureBank:
    """Return the L2-normalised features of all images, with the current weights of the model.

    With several processes each extracts a share of the batches, and all receive all features. With
    ``UNSUP.EXTRACT_FLIP`` the features of an image and of its horizontal flip are averaged and
    normalised. A batch has ``indices``, the positions of its images in the list.

    Args:
        cfg: The config.
        model: A :class:`unreid.contracts.ReIDModel`, or one inside DistributedDataParallel.
        images: N images.

    Returns:
        Features (N, D) in the order of ``images``, camera ids, and norms before normalisation.

    Raises:
        UnreadableImageError: A file cannot be read; names the file.
        FloatingPointError: A feature is not finite, so training has diverged.
    """
    reid: ReIDModel = unwrap(model)
    loader = build_extraction_loader(cfg, images).part(rank(), world_size())
    parts: list[torch.Tensor] = []
    lengths: list[torch.Tensor] = []
    extras: list[Any] = []
    with inference_context(reid), torch.inference_mode():
        for batch in progress(loader, "features"):
            features, extra = reid.extract_features(batch)
            extras.append(extra)
            if cfg.UNSUP.EXTRACT_FLIP:
                flipped = {**batch, "images": batch["images"].flip(3)}
                of_flipped, extra = reid.extract_features(flipped)
                features = (features + of_flipped) / 2
                extras.append(extra)
            lengths.append(features.float().norm(dim=1).cpu())
            parts.append(torch.nn.functional.normalize(features.float()).cpu())
    reid.on_extracted([extra for part in all_gather(extras) for extra in part])
    rows = indices_per_rank(len(images), cfg.TEST.IMS_PER_BATCH, world_size())
    features = all_gather_rows(torch.cat(parts) if parts else torch.zeros(0, 0), rows)
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise FloatingPointError(
            f"the feature of {images.paths[first]} is not finite ({int((~finite).sum())} of"
            f" {len(features)} features are not): training has diverged; lower SOLVER.BASE_LR"
        )
    norms = all_gather_rows(torch.cat(lengths) if lengths else torch.zeros(0), rows)
    return FeatureBank(np.ascontiguousarray(features.numpy()), images.camids, norms.numpy())
