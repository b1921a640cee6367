"""Features of all training images: eval mode, no augmentation, in the order of the list.

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
    """A bar with an ETA on a terminal; silence elsewhere."""
    hidden = not sys.stderr.isatty() or rank() > 0
    return tqdm(iterable, description, total, leave=False, disable=hidden)


def indices_per_rank(num: int, batch_size: int, num_ranks: int) -> list[np.ndarray]:
    """By rank, the images of its batches: rank r has the batches r, r + W, r + 2 W, ... of N."""
    batches = np.arange(num) // batch_size
    return [np.flatnonzero(batches % num_ranks == r) for r in range(num_ranks)]


def extract(cfg: Any, model: nn.Module, images: UnlabelledImages) -> FeatureBank:
    """Unit features of every image, by the model as it is; of several processes each computes
    some, and all have all of them.

    With ``UNSUP.EXTRACT_FLIP`` the feature is the mean of that of the image and that of its mirror
    image, brought to unit length. Batches have ``indices``, images of the list.

    Raises:
        UnreadableImageError: names a file that cannot be read.
        FloatingPointError: a feature is not finite: training has diverged.
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
                mirrored, extra = reid.extract_features(flipped)
                features = (features + mirrored) / 2
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
            f" {len(features)} are not): training has diverged; lower SOLVER.BASE_LR"
        )
    norms = all_gather_rows(torch.cat(lengths) if lengths else torch.zeros(0), rows)
    return FeatureBank(np.ascontiguousarray(features.numpy()), images.camids, norms.numpy())
