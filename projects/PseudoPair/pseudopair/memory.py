"""Memory with a unit row per image and group (patch or head), and random samples of its rows.

[0] Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
    https://arxiv.org/abs/1805.01978

Notation: N images, G groups (patches or heads), D channels, B batch, M sampled rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from unreid.checks import check_integer, check_number

#: A row is not updated if its new norm is below this value, because its direction is undefined.
_MIN_NORM = 1e-6


@dataclass(frozen=True)
class RowSample:
    """Sample of the memory rows, the negatives of a training step.

    Attributes:
        indices: (M,) int64 images, possibly with repetitions.
        is_random: True for a random sample, False for all N in order.
        num_images: N.
    """

    indices: Tensor
    is_random: bool
    num_images: int

    def correction(self, negatives: Tensor, excluded: Tensor | int) -> Tensor:
        """Return the log of the number of negatives per sampled negative, (B, 1); 0 for all N.

        Rows are sampled independently and uniformly. Hence the sum over sampled negatives, times
        (number of negatives) / (number of sampled negatives), is an unbiased estimate of the sum
        over all negatives in the softmax denominator (its logarithm is biased).

        Args:
            negatives: (B, M) bool, sampled rows that are negatives of an anchor.
            excluded: (B,) or a number: number of images that are not negatives of an anchor.
        """
        if not self.is_random:
            return torch.zeros(len(negatives), 1, device=negatives.device)
        num_sampled = negatives.sum(1).clamp(min=1)
        num_negatives = torch.as_tensor(self.num_images - excluded, device=negatives.device).clamp(
            min=1
        )
        return (num_negatives / num_sampled).log().reshape(-1, 1).expand(len(negatives), 1)


class RowMemory(nn.Module):
    """Memory of (G, N, D) unit rows, updated by features and not by the optimiser.

    A row of zeros is not initialised yet; the first feature of its image initialises it.

    Args:
        num_groups: G.
        num_features: D.
        momentum: Weight of the old row in an update, in 0..1.
        saved: Whether checkpoints contain the rows. A state with any N can be loaded.

    Attributes:
        rows: (G, N, D) float32; N is 0 until :meth:`reset`.
    """

    rows: Tensor

    def __init__(self, num_groups: int, num_features: int, *, momentum: float, saved: bool) -> None:
        super().__init__()
        self.num_groups = check_integer("num_groups", num_groups, 1)
        self.num_features = check_integer("num_features", num_features, 1)
        self.momentum = check_number("momentum", momentum, 0, 1)
        self.saved = saved
        self.register_buffer("rows", torch.zeros(num_groups, 0, num_features), persistent=saved)

    def __len__(self) -> int:
        """Return N."""
        return self.rows.shape[1]

    def extra_repr(self) -> str:
        shape = tuple(self.rows.shape)
        return f"(G, N, D) {shape}, momentum={self.momentum}, saved={self.saved}"

    @torch.no_grad()
    def reset(self, rows: Tensor) -> None:
        """Set the rows to (G, N, D) ``rows`` after L2 normalisation; rows of zeros are kept.

        Raises:
            ValueError: G or D differs, N is 0, or a value is not finite.
        """
        expected = (self.num_groups, self.num_features)
        if rows.ndim != 3 or (rows.shape[0], rows.shape[2]) != expected or not rows.shape[1]:
            raise ValueError(
                f"rows must have shape ({expected[0]}, N, {expected[1]}) with N >= 1, got"
                f" {tuple(rows.shape)}"
            )
        if not torch.isfinite(rows).all():
            raise ValueError("rows must be finite, got NaN or infinity")
        self.rows = F.normalize(rows.detach().float().to(self.rows.device), dim=2)

    def sample(self, num_rows: int, generator: torch.Generator | None = None) -> RowSample:
        """Return ``num_rows`` images sampled with replacement, or all N if it is 0 or >= N.

        The cost of a step with ``num_rows`` rows does not depend on N.
        """
        device = self.rows.device
        if num_rows == 0 or num_rows >= len(self):
            return RowSample(torch.arange(len(self), device=device), False, len(self))
        images = torch.randint(len(self), (num_rows,), generator=generator)
        return RowSample(images.to(device), True, len(self))

    def rows_of(self, sample: RowSample) -> Tensor:
        """Return the (G, M, D) rows of a sample; a view if it contains all N."""
        return self.rows[:, sample.indices] if sample.is_random else self.rows

    @torch.no_grad()
    def update(self, indices: Tensor, features: Tensor) -> None:
        """Update w_i <- normalise(m w_i + (1 - m) f_i) with the batches of all ranks.

        Args:
            indices: (B,) int64 images; of repeated images the first is used.
            features: (B, G, D) unit rows.
        """
        indices, features = _gather(indices), _gather(features.detach().float())
        images, inverse = torch.unique(indices, return_inverse=True)
        places = torch.arange(len(indices), device=indices.device)
        first = torch.full_like(images, len(indices))
        first = first.scatter_reduce(0, inverse, places, "amin")
        old, new = self.rows[:, images], features[first].transpose(0, 1)
        known = old.abs().sum(2, keepdim=True) > 0
        mixed = torch.where(known, self.momentum * old + (1 - self.momentum) * new, new)
        length = mixed.norm(dim=2, keepdim=True)
        self.rows[:, images] = torch.where(length > _MIN_NORM, mixed / length, old)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Resize the rows to the saved N before loading; another G or D is an error."""
        saved = state_dict.get(prefix + "rows")
        expected = (self.num_groups, self.num_features)
        if self.saved and saved is not None and saved.ndim == 3 and saved.shape[::2] == expected:
            self.rows = self.rows.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _gather(values: Tensor) -> Tensor:
    """Concatenate the batches of all ranks, which have equal size, in rank order."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)
