"""Config keys of PseudoPair, with the symbols of the method.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035. Only its abstract was available; all values are our choice.
"""

from __future__ import annotations

from fastreid.config import CfgNode

from pseudopair import intra
from pseudopair.surrogate import KINDS
from unreid.checks import check_choice, check_integer, check_number


def add_config(cfg: CfgNode) -> None:
    """Declare ``cfg.PSEUDOPAIR``."""
    cfg.PSEUDOPAIR = CfgNode()
    # Expected number of other images of the same person, per image; sets beta, a quantile of the
    # similarities.
    cfg.PSEUDOPAIR.EXPECTED_POSITIVES = 17.0

    # 0. Patch surrogate classes: L_sur.
    cfg.PSEUDOPAIR.SURROGATE = CfgNode()
    cfg.PSEUDOPAIR.SURROGATE.ENABLED = True
    # P patches: "stripes" of the map or "crops" (P fixed boxes per image), with d channels each.
    cfg.PSEUDOPAIR.SURROGATE.PATCHES = 6
    cfg.PSEUDOPAIR.SURROGATE.KIND = "stripes"
    cfg.PSEUDOPAIR.SURROGATE.DIM = 128
    # tau, and weight of the old row in an update of the memory w.
    cfg.PSEUDOPAIR.SURROGATE.TEMPERATURE = 0.1
    cfg.PSEUDOPAIR.SURROGATE.MOMENTUM = 0.2
    # Memory rows sampled per step; 0 takes all N.
    cfg.PSEUDOPAIR.SURROGATE.NEGATIVES = 4096
    # Use the whole image as one more patch until training on pairs starts (epoch E0).
    cfg.PSEUDOPAIR.SURROGATE.WHOLE = True
    # E0: number of epochs with surrogate classes only; weight of L_sur before and after E0.
    cfg.PSEUDOPAIR.SURROGATE.EPOCHS = 10
    cfg.PSEUDOPAIR.SURROGATE.WEIGHT = 1.0
    cfg.PSEUDOPAIR.SURROGATE.LATER_WEIGHT = 0.2

    # 1. Guided similarity separation: L_sep, from epoch E0 on.
    cfg.PSEUDOPAIR.SEPARATION = CfgNode()
    cfg.PSEUDOPAIR.SEPARATION.ENABLED = True
    cfg.PSEUDOPAIR.SEPARATION.ALPHA = 1.0
    # Weight of the old beta in its moving average over epochs; 0 uses the current epoch only.
    cfg.PSEUDOPAIR.SEPARATION.BETA_MOMENTUM = 0.0
    # Collapse check: stop the run if the mean similarity of different images is larger; 1 turns
    # the check off.
    cfg.PSEUDOPAIR.SEPARATION.MAX_SIMILARITY = 0.9

    # The pairs: mutual top k and s > beta. k goes from K in epoch E0 to K_LAST in the last one,
    # linearly.
    cfg.PSEUDOPAIR.PAIR = CfgNode()
    cfg.PSEUDOPAIR.PAIR.ENABLED = True
    cfg.PSEUDOPAIR.PAIR.K = 8
    cfg.PSEUDOPAIR.PAIR.K_LAST = 8
    # Separate beta for pairs within a camera and across cameras; uses camera ids.
    cfg.PSEUDOPAIR.PAIR.PER_CAMERA = False
    # L_pair: its weight l1, tau, and whether pairs are weighted by their confidence |s - beta|.
    cfg.PSEUDOPAIR.PAIR.WEIGHT = 1.0
    cfg.PSEUDOPAIR.PAIR.TEMPERATURE = 0.1
    cfg.PSEUDOPAIR.PAIR.BY_CONFIDENCE = True
    # Negatives from a memory of all images (NEGATIVES rows per step; 0: all), or from the batch.
    cfg.PSEUDOPAIR.PAIR.MEMORY = True
    cfg.PSEUDOPAIR.PAIR.NEGATIVES = 4096
    cfg.PSEUDOPAIR.PAIR.MOMENTUM = 0.2
    # Exclude images with a similarity above beta that are not partners from the negatives.
    cfg.PSEUDOPAIR.PAIR.SPARE_ABOVE_BETA = True

    # 2. Intra-similarity: K attention heads, gamma of L_div.
    cfg.PSEUDOPAIR.INTRA = CfgNode()
    cfg.PSEUDOPAIR.INTRA.ENABLED = True
    # Input of head k: the k-th of K overlapping "patches" of the body, or the whole "body".
    cfg.PSEUDOPAIR.INTRA.KIND = "patches"
    cfg.PSEUDOPAIR.INTRA.HEADS = 4
    cfg.PSEUDOPAIR.INTRA.REDUCTION = 16
    cfg.PSEUDOPAIR.INTRA.DIVERSITY = 0.1

    # 3. Inter-similarity: l2, channels of the reduced map, kernel size of the deformable
    # convolution, hard negatives per pair.
    cfg.PSEUDOPAIR.INTER = CfgNode()
    cfg.PSEUDOPAIR.INTER.ENABLED = True
    cfg.PSEUDOPAIR.INTER.WEIGHT = 1.0
    cfg.PSEUDOPAIR.INTER.WIDTH = 128
    cfg.PSEUDOPAIR.INTER.KERNEL = 3
    cfg.PSEUDOPAIR.INTER.NEGATIVES = 3
    # Whether L_inter trains the backbone, or the alignment module only.
    cfg.PSEUDOPAIR.INTER.TRAINS_BACKBONE = True

    # At test: the top TOP_K results are re-ranked by (1 - WEIGHT) distance + WEIGHT (1 - s_inter).
    cfg.PSEUDOPAIR.RERANK = CfgNode()
    cfg.PSEUDOPAIR.RERANK.ENABLED = False
    cfg.PSEUDOPAIR.RERANK.TOP_K = 50
    cfg.PSEUDOPAIR.RERANK.WEIGHT = 0.5


def check_config(cfg: CfgNode) -> None:
    """Check that values are in range, and that required terms of the loss are enabled.

    Raises:
        ValueError: A value is invalid; names the key, the value and the range.
    """
    root = cfg.PSEUDOPAIR
    check_choice("PSEUDOPAIR.SURROGATE.KIND", root.SURROGATE.KIND, KINDS)
    check_choice("PSEUDOPAIR.INTRA.KIND", root.INTRA.KIND, intra.KINDS)
    for node, keys, low in (
        ("SURROGATE", ("PATCHES", "DIM"), 1),
        ("SURROGATE", ("NEGATIVES", "EPOCHS"), 0),
        ("PAIR", ("K", "K_LAST"), 1),
        ("PAIR", ("NEGATIVES",), 0),
        ("INTRA", ("HEADS", "REDUCTION"), 1),
        ("INTER", ("KERNEL", "NEGATIVES"), 1),
        ("INTER", ("WIDTH",), 2),
        ("RERANK", ("TOP_K",), 1),
    ):
        for key in keys:
            check_integer(f"PSEUDOPAIR.{node}.{key}", root[node][key], low)
    for node, keys in (
        ("SURROGATE", ("MOMENTUM",)),
        ("PAIR", ("MOMENTUM",)),
        ("RERANK", ("WEIGHT",)),
        ("SEPARATION", ("BETA_MOMENTUM", "MAX_SIMILARITY")),
    ):
        for key in keys:
            check_number(f"PSEUDOPAIR.{node}.{key}", root[node][key], 0, 1)
    for node, keys in (
        ("SURROGATE", ("WEIGHT", "LATER_WEIGHT")),
        ("SEPARATION", ("ALPHA",)),
        ("PAIR", ("WEIGHT",)),
        ("INTRA", ("DIVERSITY",)),
        ("INTER", ("WEIGHT",)),
    ):
        for key in keys:
            check_number(f"PSEUDOPAIR.{node}.{key}", root[node][key], 0)
    for node in ("SURROGATE", "PAIR"):
        key = f"PSEUDOPAIR.{node}.TEMPERATURE"
        check_number(key, root[node].TEMPERATURE, 0, open_minimum=True)
    check_number("PSEUDOPAIR.EXPECTED_POSITIVES", root.EXPECTED_POSITIVES, 0, open_minimum=True)
    _check_terms(cfg)


def _check_terms(cfg: CfgNode) -> None:
    root = cfg.PSEUDOPAIR
    terms = [name for name in ("SURROGATE", "PAIR", "SEPARATION", "INTER") if root[name].ENABLED]
    if not terms:
        raise ValueError(
            "PSEUDOPAIR needs at least one loss: SURROGATE, PAIR, SEPARATION or INTER must"
            " have ENABLED True"
        )
    if root.INTRA.ENABLED and not root.PAIR.ENABLED:
        raise ValueError(
            "PSEUDOPAIR.INTRA.ENABLED must be False without PSEUDOPAIR.PAIR.ENABLED:"
            " its heads are trained on the pairs"
        )
    if root.RERANK.ENABLED and not root.INTER.ENABLED:
        raise ValueError(
            "PSEUDOPAIR.RERANK.ENABLED must be False without"
            " PSEUDOPAIR.INTER.ENABLED, which computes the similarity for re-ranking"
        )
    if root.INTER.KERNEL % 2 == 0:
        raise ValueError(f"PSEUDOPAIR.INTER.KERNEL must be odd, got {root.INTER.KERNEL}")
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    in_batch = root.INTER.ENABLED or (root.PAIR.ENABLED and not root.PAIR.MEMORY)
    if in_batch and sampler != "PairSampler":
        raise ValueError(
            "DATALOADER.SAMPLER_TRAIN must be PairSampler for"
            " PSEUDOPAIR.PAIR.MEMORY False or PSEUDOPAIR.INTER.ENABLED True"
            f" (both images of a pair must be in the batch), got {sampler!r}"
        )
    if root.SURROGATE.ENABLED and len(terms) > 1:
        epochs, last = root.SURROGATE.EPOCHS, cfg.SOLVER.MAX_EPOCH
        if last and epochs >= last:  # 0: a frozen network, whose pairs are labels alone
            raise ValueError(
                f"PSEUDOPAIR.SURROGATE.EPOCHS must be below SOLVER.MAX_EPOCH ({last}),"
                f" otherwise pairs are never used; got {epochs}"
            )


def first_pair_epoch(cfg: CfgNode) -> int:
    """Return E0, the number of epochs with surrogate classes only; 0 without them."""
    surrogate = cfg.PSEUDOPAIR.SURROGATE
    return surrogate.EPOCHS if surrogate.ENABLED else 0
