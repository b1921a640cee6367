"""Features of all training images: eval mode, no augmentation, in the order of the list.

Letters: N images, D channels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from fastreid.evaluation.evaluator import inference_context
from torch import nn
from tqdm import tqdm

from unreid.data.loader import build_extraction_loader
from unreid.data.unlabelled import UnlabelledImages
from unreid.structures import FeatureBank


def progress(iterable: Any, description: str, total: int | None = None) -> Any:
    """A bar with an ETA on a terminal; silence elsewhere."""
    return tqdm(iterable, description, total, leave=False, disable=not sys.stderr.isatty())


def extract(cfg: Any, model: nn.Module, images: UnlabelledImages) -> FeatureBank:
    """Unit features of every image, by the model as it is.

    With ``UNSUP.EXTRACT_FLIP`` the feature is the mean of that of the image and that of its mirror
    image, brought to unit length. Batches have ``indices``, images of the list.

    Raises:
        UnreadableImageError: names a file that cannot be read.
        FloatingPointError: a feature is not finite: training has diverged.
    """
    loader = build_extraction_loader(cfg, images)
    parts: list[torch.Tensor] = []
    lengths: list[torch.Tensor] = []
    with inference_context(model), torch.inference_mode():
        for batch in progress(loader, "features"):
            features = model(batch)
            if cfg.UNSUP.EXTRACT_FLIP:
                mirrored = model({**batch, "images": batch["images"].flip(3)})
                features = (features + mirrored) / 2
            lengths.append(features.float().norm(dim=1).cpu())
            parts.append(torch.nn.functional.normalize(features.float()).cpu())
    features = torch.cat(parts)
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise FloatingPointError(
            f"the feature of {images.paths[first]} is not finite ({int((~finite).sum())} of"
            f" {len(features)} are not): training has diverged; lower SOLVER.BASE_LR"
        )
    return FeatureBank(
        np.ascontiguousarray(features.numpy()), images.camids, torch.cat(lengths).numpy()
    )
