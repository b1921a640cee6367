"""PseudoPair: unsupervised training on pairs of similar images instead of clusters.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035
"""

from __future__ import annotations

from typing import Any

from pseudopair import config, show
from pseudopair.labeler import PseudoPairLabeler
from pseudopair.meta_arch import PseudoPair
from pseudopair.sampler import PairSampler
from unreid.contracts import Project

__all__ = ["PairSampler", "PseudoPair", "PseudoPairLabeler", "PseudoPairProject"]


class PseudoPairProject(Project):
    """Project with pairs of images as positives: global, part-based and aligned similarity [0]."""

    def add_config(self, cfg: Any) -> None:
        """Declare ``cfg.PSEUDOPAIR``."""
        config.add_config(cfg)

    def check_config(self, cfg: Any) -> None:
        """Raise ValueError if a value is out of range."""
        config.check_config(cfg)

    def draw_pictures(
        self, cfg: Any, weights: str, output: str, *, num_pairs: int = 6, num_images: int = 2000
    ) -> list[str]:
        """Draw attention maps of the heads, and aligned pairs; see :func:`pseudopair.show.draw`."""
        return show.draw(cfg, weights, output, num_pairs=num_pairs, num_images=num_images)
