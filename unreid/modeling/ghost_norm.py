"""Ghost batch norm: batch norm over groups of a few images, for any batch size and any devices.

[0] Hoffer, Hubara, Soudry, Train longer, generalize better, NeurIPS 2017, arXiv 1705.08741.

Published unsupervised Re-ID methods train on four GPUs without synchronised statistics, so batch
norm sees 16 to 64 images. Training with the whole batch on one GPU gives other statistics (users of
fast-reid and Cluster Contrast report a loss of 20 mAP). ``MODEL.GHOST_BN`` sets the group size
explicitly.

Notation: B images, C channels, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of groups of ``group_size`` images.

    A batch is split into ceil(B / group_size) nearly equal groups of consecutive images, as by
    DataParallel, but never into a group of one image, which has no variance. The running statistics
    are updated once per batch with the mean of the statistics of the groups. In evaluation it is
    plain batch norm.

    Args:
        norm: The batch norm to replace; parameters and buffers are shared with it.
        group_size: Images per group, >= 2.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: nn.BatchNorm2d, group_size: int) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.group_size = group_size
        self.weight, self.bias = norm.weight, norm.bias
        assert norm.running_mean is not None and norm.running_var is not None
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        assert norm.num_batches_tracked is not None
        self.num_batches_tracked = norm.num_batches_tracked

    def forward(self, input: Tensor) -> Tensor:
        groups = min(-(-len(input) // self.group_size), len(input) // 2)
        if not self.training or groups <= 1:
            return super().forward(input)
        if torch.compiler.is_compiling() and len(input) % groups == 0:
            return self._at_once(input, groups)
        outputs, means, variances = [], [], []
        for chunk in input.tensor_split(groups):
            # Momentum 1 writes the statistics of this group into temporary buffers.
            mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            outputs.append(
                F.batch_norm(chunk, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            )
            means.append(mean)
            variances.append(var)
        with torch.no_grad():
            self.running_mean.lerp_(torch.stack(means).mean(dim=0), self.momentum)
            self.running_var.lerp_(torch.stack(variances).mean(dim=0), self.momentum)
            self.num_batches_tracked.add_(1)
        return torch.cat(outputs)

    def _at_once(self, input: Tensor, groups: int) -> Tensor:
        """Normalise all groups in one expression, for torch.compile.

        Inductor compiles the loop over groups to wrong gradients (torch 2.15, CPU), and can fuse
        this expression.
        """
        each = input.float().reshape(groups, -1, *input.shape[1:])
        var, mean = torch.var_mean(each, (1, 3, 4), correction=0, keepdim=True)
        shape = (1, 1, -1, 1, 1)
        normal = (each - mean) * torch.rsqrt(var + self.eps)
        output = normal * self.weight.view(shape) + self.bias.view(shape)
        with torch.no_grad():
            count = each[0, :, 0].numel()
            unbiased = var.flatten(1) * (count / (count - 1))
            self.running_mean.lerp_(mean.flatten(1).mean(dim=0), self.momentum)
            self.running_var.lerp_(unbiased.mean(dim=0), self.momentum)
            self.num_batches_tracked.add_(1)
        return output.reshape(input.shape).to(input.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group_size={self.group_size}"


class GhostBatchNormAct2d(GhostBatchNorm2d):
    """The same in place of timm's ``BatchNormAct2d``, which drops out and activates its output.

    Args:
        norm: A batch norm with the modules ``drop`` and ``act``.
        group_size: Images per group, >= 2.
    """

    def __init__(self, norm: Any, group_size: int) -> None:
        super().__init__(norm, group_size)
        self.drop, self.act = norm.drop, norm.act

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised and activated (B, C, H, W)."""
        output: Tensor = self.act(self.drop(super().forward(input)))
        return output


def _ghost(norm: nn.BatchNorm2d, group_size: int) -> GhostBatchNorm2d:
    """Return the ghost batch norm of a layer.

    Raises:
        ValueError: The layer is a subclass whose forward pass is not that of batch norm.
    """
    kind = type(norm)
    if kind.forward is nn.BatchNorm2d.forward:
        return GhostBatchNorm2d(norm, group_size)
    if kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm."):
        return GhostBatchNormAct2d(norm, group_size)
    raise ValueError(
        f"MODEL.GHOST_BN must be 0 for a network with layers of the class {kind.__module__}."
        f"{kind.__name__}, got {group_size}"
    )


def use_ghost_norm(module: nn.Module, group_size: int) -> int:
    """Replace every trainable 2-d batch norm in ``module`` in place.

    Synchronised, frozen, instance and group norms are not replaced.

    Returns:
        Number of replaced layers.

    Raises:
        ValueError: A batch norm does more than normalise, and is not timm's ``BatchNormAct2d``.
    """
    replaced = 0
    for name, child in module.named_children():
        if isinstance(child, GhostBatchNorm2d):
            continue
        if isinstance(child, nn.BatchNorm2d) and child.track_running_stats:
            setattr(module, name, _ghost(child, group_size))
            replaced += 1
        else:
            replaced += use_ghost_norm(child, group_size)
    return replaced
