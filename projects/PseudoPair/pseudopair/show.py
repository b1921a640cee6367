"""Compute what :mod:`pseudopair.drawing` draws: pairs, attention of the heads, alignment.

Notation: B images, K heads, C x H x W feature map of the backbone, M pairs.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pseudopair.drawing import (
    aligned_positions,
    alignment_image,
    attention_grid,
    image_grid,
    stack_vertically,
)
from pseudopair.labeler import PseudoPairLabeler
from pseudopair.meta_arch import PseudoPair
from unreid.checks import check_integer
from unreid.data.loader import build_extraction_loader
from unreid.data.unlabelled import UnlabelledImages, load_training_images
from unreid.engine.checkpoint import AtomicCheckpointer
from unreid.engine.extract import extract
from unreid.engine.trainer import UnsupervisedTrainer
from unreid.labels.neighbours import Search
from unreid.labels.transforms import apply_transforms, transforms_from_config
from unreid.structures import PseudoPairs

logger = logging.getLogger("fastreid.unreid.pseudopair")

#: File names, and JPEG quality.
HEADS, ALIGNMENT, QUALITY = "pairs_heads.jpg", "pairs_alignment.jpg", 82
#: Number of alignments per row.
_ACROSS = 3


def head_heatmaps(model: PseudoPair, images: Tensor) -> Tensor:
    """Return heat maps of the contribution of each position to each head.

    The heat of head k at a position is the sum over channels of the feature map times the gradient
    of |a_k * g_k|^2. It is positive where the position contributes more to the weighted descriptor
    a_k * g_k than to the descriptor g_k, whose norm is always 1.

    Args:
        model: A model with heads, in evaluation mode.
        images: (B, 3, h, w) in 0..255.

    Returns:
        (B, K, H, W) float32.
    """
    assert model.intra is not None
    with torch.no_grad():
        maps = model.backbone(model.normalized(images))
    with torch.enable_grad():
        maps = maps.detach().requires_grad_()
        described, weights = model.intra.describe(maps, model.heads(maps), model.heads.pool_layer)
        kept = (weights.detach() * described).square().sum(2)
        heats = []
        for head in kept.unbind(1):
            (gradient,) = torch.autograd.grad(head.sum(), maps, retain_graph=True)
            heats.append((gradient * maps.detach()).sum(1))
    return torch.stack(heats, dim=1).float().cpu()


@torch.no_grad()
def alignments(
    model: PseudoPair, images_i: Tensor, images_j: Tensor, expected: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the aligned positions of each pair, and the similarities of both ends.

    Args:
        model: A model with the inter-similarity, in evaluation mode.
        images_i: (B, 3, h, w) in 0..255.
        images_j: (B, 3, h, w) in 0..255.
        expected: See :func:`pseudopair.drawing.aligned_positions`.

    Returns:
        For each pair, positions (H, W, 2) and similarities (H, W).
    """
    assert model.inter is not None
    left, right = model.pair_maps(images_i), model.pair_maps(images_j)
    aligned, offsets, attention = model.inter.align(left, right)
    similarities = F.cosine_similarity(left, aligned, dim=1)
    arrays = [x.float().cpu().numpy() for x in (attention, offsets, similarities)]
    return [(aligned_positions(a, o, expected), s) for a, o, s in zip(*arrays)]


def select_pairs(pairs: PseudoPairs, camids: np.ndarray, num_pairs: int) -> np.ndarray:
    """Return up to ``num_pairs`` pairs, evenly spaced in order of decreasing confidence.

    Pairs across cameras are preferred. No image is used twice.

    Args:
        pairs: Mined pairs.
        camids: (N,) camera ids.
        num_pairs: Maximum number of pairs.

    Returns:
        (M, 2) int64, M <= num_pairs.
    """
    order = np.argsort(-pairs.confidence, kind="stable")
    cross = camids[pairs.indices[:, 0]] != camids[pairs.indices[:, 1]]
    taken: set[int] = set()
    free: dict[bool, list[int]] = {True: [], False: []}
    for place in [*order[cross[order]], *order[~cross[order]]]:
        i, j = pairs.indices[place].tolist()
        if not {i, j} & taken:
            taken |= {i, j}
            free[bool(cross[place])].append(int(place))
    kept = free[True] if len(free[True]) >= num_pairs else free[True] + free[False]
    steps = np.linspace(0, len(kept) - 1, min(num_pairs, len(kept))).round().astype(int)
    return pairs.indices[[kept[step] for step in steps]].reshape(-1, 2)


def _images_of(cfg: Any, images: UnlabelledImages, indices: np.ndarray) -> Tensor:
    """Return images (len(indices), 3, h, w) float in 0..255 after the test transforms."""
    # Image lists are sorted and unique; the indices of pairs are not.
    every, places = np.unique(indices, return_inverse=True)
    loader = build_extraction_loader(cfg, images.subset(every))
    return torch.cat([batch["images"] for batch in loader])[torch.from_numpy(places)]


def _pixels(images: Tensor) -> np.ndarray:
    return images.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def draw(
    cfg: Any, weights: str, output: str, *, num_pairs: int = 6, num_images: int = 2000
) -> list[str]:
    """Mine pairs of training images with a trained model, and draw attention and alignment.

    Args:
        cfg: The config that the model was trained with.
        weights: A checkpoint.
        output: Output folder.
        num_pairs: Maximum number of pairs.
        num_images: Number of training images, evenly spaced in the list.

    Returns:
        Paths of the images: attention of the heads (``PSEUDOPAIR.INTRA``) and alignment
        (``PSEUDOPAIR.INTER``), if enabled.

    Raises:
        ValueError: A number is out of range, or the model has neither part.
        RuntimeError: There is no pair among the images.
    """
    check_integer("--pairs", num_pairs, 1)
    check_integer("--images", num_images, 2)
    model = UnsupervisedTrainer.build_model(cfg)
    if model.intra is None and model.inter is None:
        raise ValueError(
            "PSEUDOPAIR.INTRA.ENABLED or PSEUDOPAIR.INTER.ENABLED must be True to"
            " draw figures, got False for both"
        )
    AtomicCheckpointer(model).load(weights)
    images, _ = load_training_images(cfg.DATASETS.NAMES, bad_image=cfg.UNSUP.BAD_IMAGE, cfg=cfg)
    steps = np.linspace(0, len(images) - 1, min(num_images, len(images))).round().astype(int)
    images = images.subset(np.unique(steps))
    model.eval()
    bank = extract(cfg, model, images)
    bank = apply_transforms(bank, transforms_from_config(cfg, Search.from_config(cfg)))
    pairs = PseudoPairLabeler(cfg)(bank, cfg.SOLVER.MAX_EPOCH - 1).pairs
    if pairs is None or not len(pairs):
        raise RuntimeError(f"no pairs found among {len(images)} images, nothing to draw")
    shown = select_pairs(pairs, bank.camids, num_pairs)
    ones, others = (_images_of(cfg, images, shown[:, side]) for side in (0, 1))
    os.makedirs(output, exist_ok=True)
    drawn: list[tuple[str, Image.Image]] = []
    if model.intra is not None:
        both = torch.stack([ones, others], dim=1).flatten(0, 1)
        drawn.append((HEADS, attention_grid(_pixels(both), head_heatmaps(model, both).numpy())))
    if model.inter is not None:
        found = alignments(model, ones, others)
        alignment_images = [
            alignment_image(i, j, *alignment)
            for i, j, alignment in zip(_pixels(ones), _pixels(others), found)
        ]
        rows = [alignment_images[k : k + _ACROSS] for k in range(0, len(alignment_images), _ACROSS)]
        drawn.append(
            (ALIGNMENT, stack_vertically([image_grid([[np.asarray(p) for p in r]]) for r in rows]))
        )
    paths = []
    for name, figure in drawn:
        paths.append(os.path.join(output, name))
        figure.save(paths[-1], quality=QUALITY, optimize=True)
    return paths
