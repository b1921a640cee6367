"""A unit row for every image (and patch, or attention head), and the columns of a step.

[0] Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
    https://arxiv.org/abs/1805.01978

Notation: N images, G groups (patches or heads), D channels, B batch, M columns drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from unreid.checks import check_integer, check_number

#: A mixture shorter than this has no direction; its row stays where it was.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Columns:
    """The rows that a step is held against.

    Attributes:
        indices: (M,) int64, images; one may stand there twice.
        sampled: Whether they are a draw; False: all N in order.
        num_images: N.
    """

    indices: Tensor
    sampled: bool
    num_images: int

    def correction(self, negatives: Tensor, excluded: Tensor | int) -> Tensor:
        """log of how many negatives stand for one that was drawn, (B, 1); 0 for all N.

        The columns are independent uniform draws, so that (number of negatives) / (number drawn)
        times a sum over the drawn ones has the sum over all of them as its expectation: the
        denominator of the softmax is estimated without bias (its logarithm is not).

        Args:
            negatives: (B, M) bool, drawn columns that are negatives of an anchor by index.
            excluded: (B,) or a number: images that are no negatives of an anchor.
        """
        if not self.sampled:
            return torch.zeros(len(negatives), 1, device=negatives.device)
        drawn = negatives.sum(1).clamp(min=1)
        every = torch.as_tensor(self.num_images - excluded, device=negatives.device).clamp(min=1)
        return (every / drawn).log().reshape(-1, 1).expand(len(negatives), 1)


class RowMemory(nn.Module):
    """(G, N, D) unit rows, moved by the features and never by the optimiser.

    A row of zeros is one that nothing is known of yet; the first feature fills it.

    Args:
        num_groups, num_features: G and D.
        momentum: In 0..1, the share of the old row in an update.
        saved: Whether a checkpoint holds the rows. A state of any N can be loaded.

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
        """N."""
        return self.rows.shape[1]

    def extra_repr(self) -> str:
        shape = tuple(self.rows.shape)
        return f"(G, N, D) {shape}, momentum={self.momentum}, saved={self.saved}"

    @torch.no_grad()
    def reset(self, rows: Tensor) -> None:
        """Take (G, N, D) rows, brought to unit length; a row of zeros stays one.

        Raises:
            ValueError: another G or D, no row, or a value that is not finite.
        """
        wanted = (self.num_groups, self.num_features)
        if rows.ndim != 3 or (rows.shape[0], rows.shape[2]) != wanted or not rows.shape[1]:
            raise ValueError(
                f"rows must have shape ({wanted[0]}, N, {wanted[1]}) with N >= 1, got"
                f" {tuple(rows.shape)}"
            )
        if not torch.isfinite(rows).all():
            raise ValueError("rows must be finite, got NaN or infinity")
        self.rows = F.normalize(rows.detach().float().to(self.rows.device), dim=2)

    def columns(self, wanted: int, generator: torch.Generator | None = None) -> Columns:
        """``wanted`` images drawn with replacement, or all N where it is 0 or >= N.

        A step against ``wanted`` columns costs the same whatever N is.
        """
        device = self.rows.device
        if wanted == 0 or wanted >= len(self):
            return Columns(torch.arange(len(self), device=device), False, len(self))
        drawn = torch.randint(len(self), (wanted,), generator=generator)
        return Columns(drawn.to(device), True, len(self))

    def at(self, columns: Columns) -> Tensor:
        """(G, M, D) rows of the columns; of all N without a copy."""
        return self.rows[:, columns.indices] if columns.sampled else self.rows

    @torch.no_grad()
    def update(self, indices: Tensor, features: Tensor) -> None:
        """w_i <- normalise(m w_i + (1 - m) f_i), over the batches of all ranks.

        Args:
            indices: (B,) int64 images; of one that comes twice only the first counts.
            features: (B, G, D), unit rows.
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
        self.rows[:, images] = torch.where(length > _SHORTEST, mixed / length, old)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Make room for the saved N before the usual loading, which refuses another G or D."""
        saved = state_dict.get(prefix + "rows")
        wanted = (self.num_groups, self.num_features)
        if self.saved and saved is not None and saved.ndim == 3 and saved.shape[::2] == wanted:
            self.rows = self.rows.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _gather(values: Tensor) -> Tensor:
    """The batches of all ranks (which are equally large) in rank order."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)
