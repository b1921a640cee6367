"""PseudoPair: pairs of images instead of clusters.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
"""

from __future__ import annotations

from pseudopair.config import add_config, check_config
from pseudopair.labeler import PseudoPairLabeler
from pseudopair.meta_arch import PseudoPair
from pseudopair.sampler import PairSampler
from pseudopair.show import draw as draw_pictures

__all__ = [
    "PairSampler", "PseudoPair", "PseudoPairLabeler", "add_config", "check_config",
    "draw_pictures",
]
