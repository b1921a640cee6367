"""Cluster memory: one unit-length centroid per cluster, updated by momentum.

[0] Cluster Contrast for Unsupervised Person Re-Identification, 2021,
    https://arxiv.org/abs/2103.11568
[1] Camera-aware Label Refinement for Unsupervised Person Re-identification, 2024,
    https://arxiv.org/abs/2403.16450

Notation: B batch, C clusters, D channels; phi centroid, q feature, y its cluster, m momentum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn

from unreid.checks import (
    check_choice,
    check_features,
    check_integer,
    check_number,
    check_targets,
)

#: A mixture shorter than this has no direction; its centroid stays where it was.
_MIN_NORM = 1e-6


class ClusterMemory(nn.Module):
    """Centroids that give logits for features and are updated by momentum, not by the optimiser.

    The centroids are a buffer, so they are saved with the model, and a state of another C can be
    loaded. They are replaced rather than written to: ``update`` may run between the forward and
    the backward pass, and the gradient is that of the centroids which the forward pass saw.

    Args:
        num_features: D.
        temperature: tau > 0 of the logits.
        momentum: m in [0, 1], the share of the old centroid in an update.
        update: ``"plain"``, every sample of the batch in its order, phi_y <- normalise(m phi_y +
            (1 - m) q); or ``"hard"``, of each cluster in the batch only the sample least similar
            to phi_y (the first of several) [0].

    Attributes:
        centroids: (C, D) float32, unit rows; (0, D) until ``reset``.

    Raises:
        ValueError: An argument out of its range.
    """

    centroids: torch.Tensor

    def __init__(
        self,
        num_features: int,
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: str = "plain",
    ) -> None:
        super().__init__()
        self.num_features = check_integer("num_features", num_features, 1)
        self.temperature = check_number("temperature", temperature, 0, open_minimum=True)
        self.momentum = check_number("momentum", momentum, 0, 1)
        self.rule = check_choice("update", update, ("plain", "hard"))
        self.register_buffer("centroids", torch.zeros(0, self.num_features))

    @property
    def num_clusters(self) -> int:
        """C, zero before the first ``reset``."""
        return len(self.centroids)

    def extra_repr(self) -> str:
        """Return the settings for ``repr`` of the module."""
        return (
            f"num_features={self.num_features}, temperature={self.temperature}, "
            f"momentum={self.momentum}, update={self.rule!r}, num_clusters={self.num_clusters}"
        )

    def reset(self, centroids: torch.Tensor) -> None:
        """Replace the centroids by a copy of new ones, of any C >= 1.

        Args:
            centroids: (C, D) floating, unit rows.

        Raises:
            TypeError, ValueError: another kind or shape, or a row that is not a unit row.
        """
        check_features("centroids", centroids)
        if centroids.shape[1] != self.num_features:
            raise ValueError(
                f"centroids must have shape (C, {self.num_features}), got {tuple(centroids.shape)}"
            )
        copy = torch.as_tensor(centroids).detach().clone()
        self.centroids = copy.to(self.centroids.device, torch.float32)

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the logits q.phi / tau for all clusters, without an update.

        Args:
            features: (B, D) floating, unit rows; of any precision, scored in float32.
            targets: (B,) integer in 0..C-1, only validated, so that a batch with
                old labels raises before its loss is computed.

        Returns:
            (B, C) float32 logits, with gradient to ``features`` only.

        Raises:
            RuntimeError: the memory is empty.
            ValueError: another shape, or a target outside 0..C-1.
        """
        self._check_batch(features, targets)
        check_targets("targets", targets, self.num_clusters)
        # Half precision has 3 digits: at tau 0.05 the error of a logit would be 0.02.
        with torch.autocast(features.device.type, enabled=False):
            return features.float() @ self.centroids.t() / self.temperature

    @torch.no_grad()
    def update(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Update the centroids of the batch's clusters by the rule ``update``.

        In a distributed run every process must call it: the batches of all ranks are joined in
        rank order (their sizes may differ), so that the memory stays the same everywhere.

        Args:
            features: (B, D) floating, unit rows.
            targets: (B,) integer in 0..C-1.

        Raises:
            RuntimeError: the memory is empty.
            ValueError: another shape, or a target outside 0..C-1, on any rank.
        """
        self._check_batch(features, targets)
        features, targets = _gather(features.detach().float(), targets.long())
        check_targets("targets", targets, self.num_clusters)
        if not len(targets):
            return
        moved = self.centroids.clone()
        if self.rule == "hard":
            similarity = (features * moved[targets]).sum(1)
            order = torch.argsort(similarity, stable=True)
            rounds = [_by_occurrence(targets, order)[0]]
        else:
            rounds = _by_occurrence(targets, torch.arange(len(targets), device=targets.device))
        for rows in rounds:
            clusters = targets[rows]  # distinct within a round, so that nothing is overwritten
            old = moved[clusters]
            mixed = self.momentum * old + (1 - self.momentum) * features[rows]
            length = mixed.norm(dim=1, keepdim=True)
            moved[clusters] = torch.where(length > _MIN_NORM, mixed / length, old)
        self.centroids = moved

    def _check_batch(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        if not self.num_clusters:
            raise RuntimeError("the cluster memory is empty: call reset(centroids) first")
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f"features must have shape (B, {self.num_features}), got {tuple(features.shape)}"
            )
        if targets.shape != features.shape[:1]:
            raise ValueError(
                f"targets must have shape ({len(features)},), got {tuple(targets.shape)}"
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Resize the centroids to the saved C before loading; a different D raises an error."""
        saved = state_dict.get(prefix + "centroids")
        if saved is not None and saved.ndim == 2 and saved.shape[1] == self.num_features:
            self.centroids = self.centroids.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _by_occurrence(targets: torch.Tensor, order: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows in rounds: round r has each cluster's r-th sample in ``order``.

    Updates of different clusters are independent. So updating all clusters of a round at once gives
    the result of updating sample by sample.
    """
    order = order[torch.argsort(targets[order], stable=True)]
    sizes = torch.unique_consecutive(targets[order], return_counts=True)[1]
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    occurrence = torch.arange(len(order), device=order.device) - starts
    per_round = torch.bincount(occurrence).tolist()
    return list(order[torch.argsort(occurrence, stable=True)].split(per_round))


def _gather(features: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batches of all ranks in rank order; the input if there is only one process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return features, targets
    world = distributed.get_world_size()
    if world == 1:
        return features, targets
    sizes = [torch.zeros(1, dtype=torch.long, device=targets.device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(targets)], device=targets.device))
    counts = [int(size) for size in sizes]
    # all_gather needs equal shapes: pad to the longest batch, then cut.
    padding = max(counts) - len(targets)
    padded = torch.cat([features, features.new_zeros(padding, features.shape[1])])
    marked = torch.cat([targets, targets.new_zeros(padding)])
    all_features = [torch.empty_like(padded) for _ in range(world)]
    all_targets = [torch.empty_like(marked) for _ in range(world)]
    distributed.all_gather(all_features, padded.contiguous())
    distributed.all_gather(all_targets, marked)
    return (
        torch.cat([f[:count] for f, count in zip(all_features, counts)]),
        torch.cat([t[:count] for t, count in zip(all_targets, counts)]),
    )
