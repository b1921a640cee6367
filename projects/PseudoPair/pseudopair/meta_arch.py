"""The network of PseudoPair: the terms of its loss, and the epochs in which they are used.

[0] Pseudo-Pair based Self-Similarity Learning for Unsupervised Person Re-identification, 2022,
    https://arxiv.org/abs/2207.13035

Notation: N images, B batch, C channels of the map, D of the descriptor, K heads, G = 1 + K groups
(the whole body and the heads), at most R partners.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.utils.events import get_event_storage
from torch import Tensor

from pseudopair import rerank
from pseudopair.backbone import IGNORES_LAST_STRIDE, remove_last_stride
from pseudopair.config import first_pair_epoch
from pseudopair.inter import InterSimilarity, choose_pairs
from pseudopair.intra import IntraSimilarity, diversity_loss, mean_head_cosine
from pseudopair.memory import RowMemory
from pseudopair.pair_loss import (
    Partners,
    batch_pair_loss,
    memory_pair_loss,
    partner_table,
    relations,
)
from pseudopair.separation import check_collapse, separation_loss, similarity_quantile
from pseudopair.surrogate import SurrogateClasses, row_nce
from unreid.contracts import StepOutput
from unreid.evaluation.reid_evaluator import UnsupervisedEvaluator
from unreid.modeling.ghost_norm import use_ghost_norm
from unreid.modeling.memory_reid import MemoryReID
from unreid.structures import FeatureBank, PseudoLabels

logger = logging.getLogger("fastreid.unreid.pseudopair")


class RowUpdate(NamedTuple):
    """Features of a batch for the update of the memories.

    Attributes:
        indices: (B,) int64.
        groups: (B, G, D) unit rows.
        patches: (B, P, d) unit rows, or None without surrogate classes.
    """

    indices: Tensor
    groups: Tensor
    patches: Tensor | None


@META_ARCH_REGISTRY.register()
class PseudoPair(MemoryReID):
    """Network with L = L_sur + L_sep + l1 (L_pair + gamma L_div) + l2 L_inter [0].

    Before epoch E0 the loss is L_sur only; afterwards all enabled terms, with the later weight of
    L_sur. In evaluation the output is the concatenation of the features of body and heads,
    normalised.

    Args:
        surrogate: Surrogate classes, or None.
        intra: Intra-similarity, or None.
        inter: Inter-similarity, or None.
        settings: ``cfg.PSEUDOPAIR``: weights, temperatures, switches.
        first_pair_epoch: E0.
        seed: Seed of the sampled memory rows.
        **memory_reid: Arguments of :class:`MemoryReID`; its ``memory`` is a :class:`RowMemory` of G
            groups, reset to the extracted features in every label step.

    Attributes:
        beta: () float32, threshold of the whole-body similarity of features as extracted.
    """

    beta: Tensor
    memory: Any

    @configurable
    def __init__(
        self,
        *,
        surrogate: SurrogateClasses | None,
        intra: IntraSimilarity | None,
        inter: InterSimilarity | None,
        settings: Any,
        first_pair_epoch: int,
        seed: int,
        **memory_reid: Any,
    ) -> None:
        super().__init__(**memory_reid)
        self.surrogate, self.intra, self.inter = surrogate, intra, inter
        for part in (intra, inter):
            if memory_reid.get("ghost_bn") and part is not None:
                use_ghost_norm(part, memory_reid["ghost_bn"])
        self.settings = settings
        self.first_pair_epoch = first_pair_epoch
        self.seed = seed
        self.register_buffer("beta", torch.tensor(-1.0))
        self.has_pair_terms = (
            settings.PAIR.ENABLED or settings.SEPARATION.ENABLED or inter is not None
        )
        self.uses_pairs = False
        self.partners: Partners | None = None
        self._generator = torch.Generator()
        self._extracted: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments of the class from ``PSEUDOPAIR.*`` and ``MODEL.*``."""
        root, keywords = cfg.PSEUDOPAIR, MemoryReID.from_config(cfg)
        backbone = cfg.MODEL.BACKBONE
        if backbone.LAST_STRIDE == 1 and backbone.NAME in IGNORES_LAST_STRIDE:
            remove_last_stride(keywords["backbone"])
        channels, width = backbone.FEAT_DIM, keywords["heads"].num_features
        surrogate, intra, inter = root.SURROGATE, root.INTRA, root.INTER
        groups = 1 + (intra.HEADS if intra.ENABLED else 0)
        keywords["memory"] = RowMemory(groups, width, momentum=root.PAIR.MOMENTUM, saved=False)
        return {
            **keywords,
            "surrogate": SurrogateClasses(
                channels,
                num_patches=surrogate.PATCHES,
                kind=surrogate.KIND,
                num_features=surrogate.DIM,
                temperature=surrogate.TEMPERATURE,
                momentum=surrogate.MOMENTUM,
                num_negatives=surrogate.NEGATIVES,
            )
            if surrogate.ENABLED
            else None,
            "intra": IntraSimilarity(channels, intra.HEADS, width, intra.REDUCTION, intra.KIND)
            if intra.ENABLED
            else None,
            "inter": InterSimilarity(channels, inter.WIDTH, inter.KERNEL)
            if inter.ENABLED
            else None,
            "settings": root,
            "first_pair_epoch": first_pair_epoch(cfg),
            "seed": cfg.UNSUP.SEED,
        }

    def forward(self, batch: dict[str, Any]) -> Any:
        """Return a :class:`StepOutput` in training, (B, G D) unit features in evaluation.

        Args:
            batch: See :meth:`MemoryReID.forward`.
        """
        maps = self.backbone(self.normalized(batch["images"]))
        groups, attention = self.group_features(maps)
        if not self.training:
            return F.normalize(groups.flatten(1))
        indices = batch["indices"].to(self.device)
        patches = None if self.surrogate is None else self.surrogate(maps, indices)
        losses = {} if patches is None else self._surrogate_losses(patches, groups, indices)
        if self.uses_pairs:
            losses.update(self._pair_losses(maps, groups, attention, indices))
        return StepOutput(
            losses,
            RowUpdate(indices, groups.detach(), None if patches is None else patches.detach()),
        )

    def extract_features(
        self, batch: dict[str, Any]
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return the features, and before the first labels also indices (B,) and patches (B, P, d).

        The indices and patches, on the CPU, initialise the memory of the surrogate classes.
        """
        maps = self.backbone(self.normalized(batch["images"]))
        features = F.normalize(self.group_features(maps)[0].flatten(1))
        if self.surrogate is None or self.surrogate.ready:
            return features, None
        indices = batch["indices"].to(self.device)
        return features, (indices.cpu(), self.surrogate(maps, indices).cpu())

    def on_extracted(self, extras: Sequence[tuple[Tensor, Tensor] | None]) -> None:
        """Store the patches until :meth:`on_new_labels` initialises the surrogate memory."""
        self._extracted = [extra for extra in extras if extra is not None]

    def group_features(self, maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (B, G, D) unit rows of body and heads, and the attention (B, K, D)."""
        body = self.heads(maps)
        if self.intra is None:
            return body.unsqueeze(1), None
        local, attention = self.intra(maps, body, self.heads.pool_layer)
        return torch.cat([body.unsqueeze(1), local], dim=1), attention

    def _surrogate_losses(
        self, patches: Tensor, groups: Tensor, indices: Tensor
    ) -> dict[str, Tensor]:
        """Return L_sur of the patches, and of the whole image in epochs without pairs."""
        assert self.surrogate is not None
        key = self.settings.SURROGATE
        weight = key.LATER_WEIGHT if self.uses_pairs else key.WEIGHT
        memory = self.surrogate.memory
        sample = memory.sample(key.NEGATIVES, self._generator) if len(memory) else None
        partners = self._partners(indices)[0] if self.uses_pairs else None
        loss = self.surrogate.loss(patches, indices, partners, sample)
        losses = {"loss_surrogate": weight * loss}
        if key.WHOLE and not (self.uses_pairs and self.settings.PAIR.ENABLED):
            sample = self.memory.sample(key.NEGATIVES, self._generator)
            whole = row_nce(
                groups[:, :1],
                indices,
                self.memory,
                sample,
                self.settings.PAIR.TEMPERATURE,
                partners,
            )
            losses["loss_whole"] = weight * whole
        return losses

    def _pair_losses(
        self, maps: Tensor, groups: Tensor, attention: Tensor | None, indices: Tensor
    ) -> dict[str, Tensor]:
        root, losses = self.settings, {}
        body = groups[:, 0]
        if root.SEPARATION.ENABLED:
            losses["loss_separation"] = separation_loss(body, self.beta, root.SEPARATION.ALPHA)
        partners, weights = self._partners(indices)
        if root.PAIR.ENABLED:
            beta = self.beta if root.PAIR.SPARE_ABOVE_BETA else None
            found = self._pair_loss(groups, indices, partners, weights, beta)
            losses["loss_pair"] = root.PAIR.WEIGHT * found[0]
            if attention is not None:
                losses["loss_pair_local"] = root.PAIR.WEIGHT * found[1:].mean()
                if root.INTRA.DIVERSITY > 0:
                    factor = root.PAIR.WEIGHT * root.INTRA.DIVERSITY
                    losses["loss_diversity"] = factor * diversity_loss(attention)
                self._log("head_cosine", mean_head_cosine(attention.detach()))
        if self.inter is not None:
            losses["loss_inter"] = root.INTER.WEIGHT * self._inter_loss(
                maps, body, indices, partners, weights
            )
        return losses

    def _pair_loss(
        self,
        groups: Tensor,
        indices: Tensor,
        partners: Tensor,
        weights: Tensor,
        beta: Tensor | None,
    ) -> Tensor:
        """Return (G,) losses of :func:`memory_pair_loss` or :func:`batch_pair_loss`."""
        key = self.settings.PAIR
        if not key.MEMORY:
            positive, shares = relations(indices, partners, weights)
            return batch_pair_loss(groups, positive, shares, temperature=key.TEMPERATURE, beta=beta)
        sample = self.memory.sample(key.NEGATIVES, self._generator)
        return memory_pair_loss(
            groups,
            indices,
            partners,
            weights,
            self.memory,
            sample,
            temperature=key.TEMPERATURE,
            beta=beta,
        )

    def _inter_loss(
        self, maps: Tensor, body: Tensor, indices: Tensor, partners: Tensor, weights: Tensor
    ) -> Tensor:
        """Return L_inter of the pairs of the batch and of hard negatives in it."""
        assert self.inter is not None
        key = self.settings.INTER
        positive, _ = relations(indices, partners, weights)
        similarity = body.detach() @ body.detach().T
        ignored = similarity > self.beta
        pairs, targets = choose_pairs(similarity, positive, ignored, key.NEGATIVES)
        if not key.TRAINS_BACKBONE:
            maps = maps.detach()
        return self.inter.loss(self.inter.maps(maps), pairs, targets)

    def _partners(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        if self.partners is None:
            raise RuntimeError(
                "pairs are not set: on_new_labels must be called before the first batch"
            )
        return self.partners.of(indices)

    def _log(self, name: str, value: Tensor) -> None:
        """Log a scalar to metrics.json; without effect outside of a training loop."""
        with contextlib.suppress(AssertionError):
            get_event_storage().put_scalar(name, float(value))

    def on_new_labels(self, pseudo: PseudoLabels, bank: FeatureBank, epoch: int) -> None:
        """Store the pairs, reset memory and beta to the features, and check for collapse.

        Raises:
            RuntimeError: The features have collapsed, or the labels have no pairs.
        """
        if pseudo.pairs is None:
            raise RuntimeError(
                "PseudoPair needs labels with pairs: set UNSUP.LABELER to PseudoPairLabeler"
            )
        num, groups = len(bank), self.memory.num_groups
        rows = torch.from_numpy(bank.features.copy()).view(num, groups, -1)
        self.memory.reset(rows.transpose(0, 1))
        body = self.memory.rows[0].cpu().numpy()
        key = self.settings.SEPARATION
        # Before the first step a high similarity is not caused by training.
        mean = check_collapse(body, key.MAX_SIMILARITY if epoch else 1.0, epoch)
        beta = similarity_quantile(body, self.settings.EXPECTED_POSITIVES)
        old = float(self.beta)
        if old >= 0:
            beta = key.BETA_MOMENTUM * old + (1 - key.BETA_MOMENTUM) * beta
        self.beta.fill_(beta)
        if self.surrogate is not None:
            self.surrogate.fill(num, self._extracted)
            self._extracted = []
        by_confidence = self.settings.PAIR.BY_CONFIDENCE
        table = partner_table(pseudo.pairs, num, by_confidence=by_confidence)
        self.partners = table.to(self.device)
        self.uses_pairs = self.has_pair_terms and epoch >= self.first_pair_epoch
        self._generator.manual_seed(self.seed * 100003 + epoch)
        logger.info(
            f"Epoch {epoch}: {'pairs' if self.uses_pairs else 'surrogate classes only'},"
            f" mean similarity {mean:.3f}, beta {beta:.3f}"
        )

    @torch.no_grad()
    def update_memory(self, update: RowUpdate) -> None:  # type: ignore[override]
        """Update the memory rows of the images of a batch."""
        self.memory.update(update.indices, update.groups)
        if self.surrogate is not None and update.patches is not None:
            self.surrogate.memory.update(update.indices, update.patches)

    @torch.no_grad()
    def pair_maps(self, images: Tensor) -> Tensor:
        """Return reduced maps (B, W, H, W') of images (B, 3, H', W') in 0..255, for re-ranking.

        Raises:
            RuntimeError: ``PSEUDOPAIR.INTER.ENABLED`` is False.
        """
        return self._aligner().maps(self.backbone(self.normalized(images)))

    @torch.no_grad()
    def pair_similarity(self, maps_i: Tensor, maps_j: Tensor) -> Tensor:
        """Return (B,) s_inter in -1..1 of pairs of reduced maps, with j aligned to i."""
        return self._aligner()(maps_i, maps_j)

    def _aligner(self) -> InterSimilarity:
        if self.inter is None:
            raise RuntimeError("PSEUDOPAIR.INTER.ENABLED must be True to compare pairs of images")
        return self.inter

    def build_evaluator(
        self, cfg: Any, num_query: int, output_dir: str | None = None
    ) -> UnsupervisedEvaluator:
        """Return the plain evaluator, or the one that re-ranks by pairs (``PSEUDOPAIR.RERANK``)."""
        return rerank.build_evaluator(cfg, num_query, self)
